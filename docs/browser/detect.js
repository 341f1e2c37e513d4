// Detection without the network, as irjax does it in Python; pure functions, for the page and for Node.
//
// An image or map is {height, width, data}, rows first. Points are (x, y) in pixels, pixel centres at integers.
// Arithmetic is in 32-bit floats where NumPy's is, so that results are the same bit for bit.

export const MIN_SIDE = 16;
const NO_MODEL = "it is not an ONNX model";

// --- files -----------------------------------------------------------------------------------------------------------

/** Yields [number, value] of the fields of a protobuf message; values of 4 and 8 bytes are skipped. */
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; at < bytes.length && scale <= 2 ** 63; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error(NO_MODEL);
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const type = tag % 8;
    if (type === 0) yield [number, varint()];
    else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else if (type === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error(NO_MODEL);
      yield [number, bytes.subarray(at, (at += length))];
    } else throw new Error(NO_MODEL);
  }
}

/**
 * Returns the configuration in a file of `irjax export --to onnx`: the fields of Python's DetectorConfig, and cell.
 * ModelProto has graph = 7 and metadata_props = 14, whose entries have key = 1 and value = 2.
 */
export function readConfig(bytes) {
  let graph = false;
  let text;
  for (const [number, value] of fieldsOf(bytes)) {
    graph ||= number === 7 && typeof value !== "number";
    if (number !== 14 || typeof value === "number") continue;
    const entry = Object.fromEntries(fieldsOf(value));
    const [key, content] = [entry[1], entry[2]].map((part) => new TextDecoder().decode(part ?? new Uint8Array()));
    if (key === "irjax") text = content;
  }
  if (!graph) throw new Error(NO_MODEL);
  if (text === undefined) throw new Error("it has no metadata “irjax”; write it with: irjax export NAME --to onnx");
  const config = JSON.parse(text);
  for (const name of ["size", "cell", "threshold", "max_detections"]) {
    if (typeof config[name] !== "number") throw new Error(`its metadata “irjax” lacks ${name}; export it again`);
  }
  return config;
}

/** Returns whether the bytes are those of a PNG file with 16 bits a sample. */
export function isDeepPng(bytes) {
  return [137, 80, 78, 71, 13, 10, 26, 10].every((byte, index) => bytes[index] === byte) && bytes[24] === 16;
}

/** Returns a table name,x,y,score as text, a line for each of the rows {name, x, y, score}. */
export function toCsv(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = rows.map(({ name, x, y, score }) => [name, x, y, score].map((value) => cell(String(value))).join(","));
  return ["name,x,y,score", ...lines, ""].join("\n");
}

// --- pixels ----------------------------------------------------------------------------------------------------------

/** Rounds to the nearest integer, halves to the even one. */
function rint(value) {
  const floor = Math.floor(value);
  const part = value - floor;
  return part < 0.5 || (part === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/** Returns the Rec. 601 luma of RGBA pixels of 8 bits, rounded; alpha is ignored. */
export function toGray(rgba, height, width) {
  const data = new Uint8Array(height * width);
  for (let i = 0; i < data.length; i++) {
    data[i] = rint((299 * rgba[4 * i] + 587 * rgba[4 * i + 1] + 114 * rgba[4 * i + 2]) / 1000);
  }
  return { height, width, data };
}

// --- letterbox: irjax/ops/letterbox.py -------------------------------------------------------------------------------

/** Returns scale and offset, [x, y] each, of the map from image to canvas pixels: canvas = image * scale + offset. */
export function letterboxAffine(height, width, size, enlarge) {
  const ratio = size / Math.max(height, width);
  if (ratio >= 1 && !enlarge) {
    return { scale: [1, 1], offset: [width, height].map((side) => Math.floor((size - side) / 2)) };
  }
  return {
    scale: [width, height].map((side) => (side * ratio - 1) / (side - 1)),
    offset: [width, height].map((side) => (size - side * ratio) / 2),
  };
}

/** Resamples one axis (1: columns) to `size` pixels, linearly; zeros lie outside. */
function resampleAxis({ height, width, data }, size, scale, offset, axis) {
  const length = axis ? width : height;
  const taps = Array.from({ length: size }, (_, index) => {
    const source = (index - offset) / scale;
    return [Math.floor(source), Math.floor(source) + 1].map((place) => ({
      place: Math.min(Math.max(place, 0), length - 1),
      weight: place >= 0 && place < length ? Math.fround(Math.max(0, 1 - Math.abs(source - place))) : 0,
    }));
  });
  const out = axis ? { height, width: size } : { height: size, width };
  out.data = new Float32Array(out.height * out.width);
  for (let y = 0, to = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++, to++) {
      const [low, high] = taps[axis ? x : y];
      const one = axis ? data[y * width + low.place] : data[low.place * width + x];
      const other = axis ? data[y * width + high.place] : data[high.place * width + x];
      out.data[to] = Math.fround(one * low.weight) + Math.fround(other * high.weight);
    }
  }
  return out;
}

/** Returns the canvas [S, S] of 8 bits of an image of 8 bits. */
export function letterbox(image, size, enlarge) {
  const { scale, offset } = letterboxAffine(image.height, image.width, size, enlarge);
  const rows = resampleAxis(image, size, scale[1], offset[1], 0);
  const canvas = resampleAxis(rows, size, scale[0], offset[0], 1);
  return { ...canvas, data: Uint8Array.from(canvas.data, (value) => Math.min(Math.max(rint(value), 0), 255)) };
}

/** Returns the image's part of a map [S, S], resampled to the image's size; reverses `letterbox`. */
export function unletterbox(map, height, width, enlarge) {
  const { scale, offset } = letterboxAffine(height, width, map.width, enlarge);
  const rows = resampleAxis(map, height, 1 / scale[1], -offset[1] / scale[1], 0);
  return resampleAxis(rows, width, 1 / scale[0], -offset[0] / scale[0], 1);
}

// --- windows: irjax/ops/windows.py -----------------------------------------------------------------------------------

/** Returns the first pixels of the fewest windows that cover an axis. */
function windowStarts(length, size, overlap) {
  if (length <= size) return [0];
  const count = Math.ceil((length - overlap) / (size - overlap));
  return Array.from({ length: count }, (_, index) => rint((index * (length - size)) / (count - 1)));
}

/** Returns the padding before a side that is shorter than a window. */
const marginOf = (length, size) => Math.floor(Math.max(size - length, 0) / 2);

/** Cuts an image into windows [S, S] that begin at multiples of `step`; shorter sides are padded with mirror images. */
export function cutWindows({ height, width, data }, size, overlap, step) {
  const axis = (length) => {
    const cells = Math.ceil(length / step);
    const margin = step * marginOf(cells, size / step);
    return windowStarts(cells, size / step, overlap / step).map((start) =>
      Array.from({ length: size }, (_, index) => {
        const place = (((step * start + index - margin) % (2 * length)) + 2 * length) % (2 * length);
        return place < length ? place : 2 * length - 1 - place;
      }),
    );
  };
  const [rows, columns] = [axis(height), axis(width)];
  return rows.flatMap((ys) =>
    columns.map((xs) => ({
      height: size,
      width: size,
      data: Uint8Array.from({ length: size * size }, (_, i) => data[ys[Math.floor(i / size)] * width + xs[i % size]]),
    })),
  );
}

/** Returns the weights of each window along an axis, which fall linearly to its borders and add up to one. */
function windowWeights(starts, size, length) {
  const ramp = (index) => Math.min(index + 1, size - index);
  const total = new Float32Array(length);
  for (const start of starts) for (let i = 0; i < size; i++) total[start + i] += ramp(i);
  return starts.map((start) => Float32Array.from({ length: size }, (_, i) => ramp(i) / total[start + i]));
}

/** Joins parts along one axis (1: columns), averaging them where they overlap. */
function joinAxis(parts, starts, length, axis) {
  if (parts.length === 1) return parts[0];
  const { height, width } = parts[0];
  const weights = windowWeights(starts, axis ? width : height, length);
  const out = axis ? { height, width: length } : { height: length, width };
  out.data = new Float32Array(out.height * out.width);
  parts.forEach(({ data }, part) => {
    for (let y = 0, from = 0; y < height; y++) {
      for (let x = 0; x < width; x++, from++) {
        const to = axis ? y * length + starts[part] + x : (starts[part] + y) * width + x;
        out.data[to] += Math.fround(data[from] * weights[part][axis ? x : y]);
      }
    }
  });
  return out;
}

/** Returns the part [height, width] of a map, at (left, top). */
function crop(map, left, top, height, width) {
  const data = new Float32Array(height * width);
  for (let y = 0, from = top * map.width + left; y < height; y++, from += map.width) {
    data.set(map.data.subarray(from, from + width), y * width);
  }
  return { height, width, data };
}

/** Joins the maps of windows into one [height, width]; reverses `cutWindows`. Of heatmaps, everything is in cells. */
export function joinWindows(maps, height, width, overlap) {
  const size = maps[0].width;
  const [rows, columns] = [height, width].map((length) => windowStarts(length, size, overlap));
  const lines = rows.map((_, row) => {
    const line = maps.slice(row * columns.length, (row + 1) * columns.length);
    return joinAxis(line, columns, Math.max(width, size), 1);
  });
  const whole = joinAxis(lines, rows, Math.max(height, size), 0);
  return crop(whole, marginOf(width, size), marginOf(height, size), height, width);
}

// --- decoding: irjax/ops/peaks.py, irjax/ops/regions.py --------------------------------------------------------------

/** Calls `visit(y, x)` for the neighbours of a cell that lie in the map, the cell itself among them. */
function around(index, { height, width }, visit) {
  const [row, column] = [Math.floor(index / width), index % width];
  for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
    for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) visit(y * width + x);
  }
}

/** Returns the 8-connected groups of the cells where `mask` is 1, as lists of cells, in raster order of their first. */
function groupsOf(mask, map) {
  const left = Uint8Array.from(mask);
  const groups = [];
  for (let first = 0; first < left.length; first++) {
    if (!left[first]) continue;
    const group = [first];
    left[first] = 0;
    for (let next = 0; next < group.length; next++) {
      around(group[next], map, (cell) => {
        if (left[cell]) group.push(cell);
        left[cell] = 0;
      });
    }
    groups.push(group);
  }
  return groups;
}

/**
 * Returns the `most` highest peaks of a heatmap as [{x, y, score}] in pixels of its canvas, highest first.
 * A peak is the highest of its 3x3 cells; of a plateau its first cell counts.
 */
export function decodeHeatmap(map, { threshold, most, stride, relative = null }) {
  const { height, width, data } = map;
  const limit = Math.fround(threshold);
  const mask = Uint8Array.from(data, (value, index) => {
    if (!(value > limit)) return 0;
    let highest = true;
    around(index, map, (cell) => (highest &&= data[cell] <= value));
    return highest;
  });
  const cells = groupsOf(mask, map).map((group) => group[0]);
  const best = cells.sort((one, other) => data[other] - data[one]).slice(0, most);
  const least = relative === null ? -Infinity : Math.fround(Math.fround(1 - relative) * data[best[0]]);
  return best
    .filter((cell) => data[cell] >= least)
    .map((cell) => {
      const [row, column] = [Math.floor(cell / width), cell % width];
      const inside = column > 1 && column < width - 1 && row > 1 && row < height - 1;
      const slope = (step) => (inside ? Math.sign(data[cell + step] - data[cell - step]) : 0);
      const place = (index, step) => Math.fround(Math.fround(index + Math.fround(slope(step) / stride)) * stride);
      return { x: place(column, 1), y: place(row, width), score: data[cell] };
    });
}

/** Converts points of a canvas to pixels of its image and drops those further than a cell outside of it. */
export function toImage(points, height, width, { size, cell, enlarge }) {
  const { scale, offset } = letterboxAffine(height, width, size, enlarge);
  const [scales, offsets] = [scale, offset].map((pair) => pair.map(Math.fround));
  const far = offsets.map((start) => Math.fround(Math.fround(size - 1 - start) + cell));
  const holds = (value, axis) => value >= Math.fround(offsets[axis] - cell) && value <= far[axis];
  const place = (value, axis) => Math.fround(Math.fround(value - offsets[axis]) / scales[axis]);
  return points
    .filter(({ x, y }) => holds(x, 0) && holds(y, 1))
    .map(({ x, y, score }) => ({ x: place(x, 0), y: place(y, 1), score }));
}

/** Returns the 8-connected regions above the threshold, the `most` with the highest peaks: centroids, peaks. */
export function decodeMask(map, { threshold, most }) {
  const limit = Math.fround(threshold);
  const regions = groupsOf(map.data.map((value) => value > limit), map).map((region) => {
    let [x, y, score] = [0, 0, -Infinity];
    for (const pixel of region) {
      x += pixel % map.width;
      y += Math.floor(pixel / map.width);
      score = Math.max(score, map.data[pixel]);
    }
    return { x: Math.fround(x / region.length), y: Math.fround(y / region.length), score };
  });
  return regions.sort((one, other) => other.score - one.score).slice(0, most);
}

// --- whole images: irjax/detector/canvases.py ------------------------------------------------------------------------

const overlapOf = ({ size, cell }) => Math.floor(Math.floor(size / 4) / cell) * cell;

/** Returns the canvases of an image of 8 bits, each S * S floats in [0, 1], which the network is to be run on. */
export function canvasesOf(image, config) {
  const { size, cell, enlarge, slide } = config;
  const pieces = slide ? cutWindows(image, size, overlapOf(config), cell) : [letterbox(image, size, enlarge)];
  return pieces.map(({ data }) => Float32Array.from(data, (value) => value / 255));
}

/** Returns one map from the network's outputs for all canvases of an image [height, width]. */
export function mapOf(outputs, height, width, config) {
  const { size, cell, enlarge, slide } = config;
  const maps = outputs.map((data) => ({ height: size / cell, width: size / cell, data }));
  if (cell > 1) {
    const [rows, columns] = [height, width].map((side) => Math.ceil(side / cell));
    return slide ? joinWindows(maps, rows, columns, overlapOf(config) / cell) : maps[0];
  }
  const map = slide
    ? joinWindows(maps, height, width, overlapOf(config))
    : unletterbox(maps[0], height, width, enlarge);
  return { ...map, data: map.data.map((value) => Math.min(Math.max(value, 0), 1)) };
}

/** Returns the detections [{x, y, score}] in an image [height, width] from its map, in pixels of the image. */
export function detectionsOf(map, height, width, config, threshold = config.threshold) {
  const { cell, slide } = config;
  const most = Math.min(config.max_detections, map.data.length);
  if (cell === 1) return decodeMask(map, { threshold, most });
  const found = decodeHeatmap(map, { threshold, most, stride: cell, relative: config.relative_threshold });
  return slide ? found : toImage(found, height, width, config);
}
