// The page: files in, the network run by onnxruntime-web, pictures and tables out. What is computed is in detect.js.

import { MIN_SIDE, canvasesOf, detectionsOf, isDeepPng, mapOf, readConfig, toCsv, toGray } from "./detect.js";

const RUNTIME = "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
const CUT = 33; // side in pixels of what is shown enlarged
const TALL = 520; // of pictures of whole images
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

let model = null; // {name, config, session}
let turn = 0; // counts the models that were asked for
let threshold = 0;
let images = []; // {name, gray, notes, view, and of the model that ran: model, map, found, milliseconds}

// --- one thing after the other ---------------------------------------------------------------------------------------

let last = Promise.resolve();
let waiting = 0;

/** Runs a task after those before it; what it throws is shown, beside the name of the file that it is about. */
function enqueue(name, task) {
  document.body.dataset.state = "busy";
  waiting++;
  last = last
    .then(task)
    .catch((error) => show(name, error))
    .finally(() => {
      if (--waiting) return;
      document.body.dataset.state = "ready";
      summarise();
    });
}

function show(name, error) {
  console.warn(error);
  $("errors").append(element("li", {}, `${name}: ${error.message}`));
}

function summarise() {
  const done = current();
  const count = done.reduce((sum, image) => sum + image.found.length, 0);
  const seconds = done.reduce((sum, image) => sum + image.milliseconds, 0) / 1000;
  $("status").textContent = done.length
    ? `${counted(count, "target")} in ${counted(done.length, "image")}, ${seconds.toFixed(1)} s`
    : model
      ? "Now some images."
      : images.length
        ? "Now a model."
        : "";
}

const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// --- models ----------------------------------------------------------------------------------------------------------

async function runtime() {
  let ort;
  try {
    ort = await import(RUNTIME);
  } catch {
    throw new Error("onnxruntime-web is not here; run npm install in the folder of this page");
  }
  ort.env.wasm.proxy = true; // in a worker, so that the page stays alive
  return ort;
}

async function load(file) {
  $("status").textContent = `Loading ${file.name} …`;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const config = readConfig(bytes);
  const ort = await runtime();
  let session;
  try {
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`onnxruntime-web cannot run it: ${error.message}`);
  }
  const run = async (canvas) => {
    const input = new ort.Tensor("float32", canvas, [1, config.size, config.size]);
    const output = await session.run({ [session.inputNames[0]]: input });
    return output[session.outputNames[0]].data;
  };
  await model?.session.release();
  model = { name: file.name, config, session, run };
  const way = config.slide ? "windows of" : config.enlarge ? "scaled to" : "scaled down to";
  $("model").textContent = `${file.name}: ${config.method}, ${way} ${config.size} px`;
  $("controls").hidden = false;
  $("probability-label").hidden = config.cell !== 1;
  setThreshold(config.threshold);
}

function chooseModel(file) {
  const mine = ++turn;
  $("errors").replaceChildren();
  enqueue(file.name, async () => {
    try {
      if (mine === turn) await load(file);
    } finally {
      if (model) images.forEach(enqueueRun);
    }
  });
}

// --- images ----------------------------------------------------------------------------------------------------------

async function read(file) {
  const notes = [];
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error("it is not an image that this browser reads");
  }
  const { width, height } = bitmap;
  if (Math.min(width, height) < MIN_SIDE) {
    throw new Error(`image of ${width}x${height} pixels; at least ${MIN_SIDE}x${MIN_SIDE} is wanted`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  if (isDeepPng(new Uint8Array(await file.slice(0, 32).arrayBuffer()))) {
    notes.push("A PNG of 16 bits, of which browsers read 8: irjax predict reads all, and may find other points.");
  }
  if (data.some((value, index) => index % 4 === 3 && value < 255)) {
    notes.push("Transparent pixels, whose colours browsers change: irjax predict ignores transparency.");
  }
  return { name: file.name, gray: toGray(data, height, width), notes };
}

function chooseImage(file) {
  enqueue(file.name, async () => {
    const image = await read(file);
    if (images.some((other) => other.name === image.name)) {
      remove(images.find((other) => other.name === image.name));
      image.notes.push("It takes the place of an image of the same name.");
    }
    image.view = element("article", {});
    images.push(image);
    $("images").append(image.view);
    draw(image);
    if (model) enqueueRun(image);
  });
}

function remove(image) {
  images = images.filter((other) => other !== image);
  image.view.remove();
}

function enqueueRun(image) {
  const mine = turn;
  enqueue(image.name, async () => {
    if (mine === turn && image.model !== model && images.includes(image)) await detect(image);
  });
}

async function detect(image) {
  const { height, width } = image.gray;
  const start = performance.now();
  const canvases = canvasesOf(image.gray, model.config);
  const outputs = [];
  for (const canvas of canvases) {
    const part = canvases.length > 1 ? `, window ${outputs.length + 1} of ${canvases.length}` : "";
    $("status").textContent = `Looking at ${image.name}${part} …`;
    outputs.push(await model.run(canvas));
  }
  image.map = mapOf(outputs, height, width, model.config);
  image.model = model;
  decode(image);
  image.milliseconds = performance.now() - start;
  draw(image);
  fillTable();
}

function decode(image) {
  image.found = detectionsOf(image.map, image.gray.height, image.gray.width, model.config, threshold);
}

function setThreshold(value) {
  threshold = value;
  $("threshold").value = value;
  $("threshold-value").textContent = Number(value.toFixed(3));
  for (const image of current()) {
    decode(image);
    draw(image);
  }
  fillTable();
  if (!waiting) summarise();
}

// --- pictures --------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function shape(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Returns the values shown as black and white: the 0.5th and 99.9th percentile. */
function contrastOf(values) {
  const sorted = Uint8Array.from(values).sort();
  const [low, high] = [0.005, 0.999].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
  return [low, Math.max(high, low + 1)];
}

/** Returns a canvas whose pixels `paint` has written, 4 bytes each. */
function picture(width, height, paint) {
  const canvas = element("canvas", { width, height });
  const pixels = new ImageData(width, height);
  paint(pixels.data);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function grayPicture({ data, width, height }, [low, high]) {
  return picture(width, height, (pixels) => {
    data.forEach((value, i) => pixels.fill((255 * (value - low)) / (high - low), 4 * i, 4 * i + 3));
    for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255;
  });
}

const probabilityPicture = ({ data, width, height }) =>
  picture(width, height, (pixels) => data.forEach((value, i) => pixels.set([255, 70, 90, 200 * value], 4 * i)));

function circles({ width, height }, found) {
  const side = Math.max(width, height);
  const radius = Math.max(7, side / 36);
  const size = side / 26;
  const marks = found.flatMap(({ x, y }, index) => {
    const end = x + radius + 2 * size > width;
    return [
      shape("circle", { class: "rim", cx: x, cy: y, r: radius }),
      shape("circle", { cx: x, cy: y, r: radius }),
      shape("circle", { class: "point", cx: x, cy: y, r: side / 400 }),
      shape(
        "text",
        {
          x: end ? x - radius : x + radius,
          y: Math.max(y - 0.4 * radius, size),
          "font-size": size,
          "text-anchor": end ? "end" : "start",
        },
        String(index + 1),
      ),
    ];
  });
  return shape("svg", { viewBox: `-0.5 -0.5 ${width} ${height}`, "aria-hidden": "true" }, ...marks);
}

function enlarged(gray, { x, y, score }, index) {
  const [columns, rows] = [Math.min(CUT, gray.width), Math.min(CUT, gray.height)];
  const place = (value, cut, side) => Math.min(Math.max(Math.round(value) - (cut >> 1), 0), side - cut);
  const [left, top] = [place(x, columns, gray.width), place(y, rows, gray.height)];
  const data = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = (top + row) * gray.width + left;
    data.set(gray.data.subarray(from, from + columns), row * columns);
  }
  const low = Math.min(...data);
  const cut = grayPicture({ data, width: columns, height: rows }, [low, Math.max(...data, low + 1)]);
  const caption = element("figcaption", {}, element("b", {}, String(index + 1)), score.toFixed(3));
  return element("figure", { title: `x ${x.toFixed(2)}, y ${y.toFixed(2)}` }, cut, caption);
}

function draw(image) {
  const { name, gray, notes, view, found = [], map } = image;
  const { width, height } = gray;
  const done = image.model !== undefined;
  const config = image.model?.config;
  const facts = [`${width} × ${height} px`];
  if (done) facts.push(counted(found.length, "target"));
  if (image.milliseconds !== undefined) facts.push(`${Math.round(image.milliseconds)} ms`);
  image.pixels ??= grayPicture(gray, contrastOf(gray.data));
  const layers = [image.pixels];
  if (config?.cell === 1 && $("probability").checked) {
    layers.push(probabilityPicture(map));
  }
  const lines = [...notes];
  const factor = config && !config.slide ? Math.max(width, height) / config.size : 0;
  if (factor > 1) {
    const scaled = `Scaled down by ${factor.toFixed(2)} to the model’s ${config.size} px`;
    lines.push(`${scaled}, so that small targets may be lost; irjax export --native keeps the resolution.`);
  }
  if (done && found.length === config.max_detections) {
    lines.push(`These are the ${found.length} highest scores, the model’s limit: there may be more.`);
  }
  const whole = element("figure", { class: "whole" }, ...layers, circles(gray, found));
  whole.style.setProperty("--wide", `${Math.round((TALL * width) / height)}px`);
  view.replaceChildren(
    element(
      "div",
      { class: "title" },
      element("h2", {}, name),
      element("p", { class: "facts" }, facts.join(" · ")),
    ),
    ...lines.map((line) => element("p", { class: "note" }, line)),
    element(
      "div",
      { class: "case" },
      whole,
      done && !found.length
        ? element("p", { class: "note" }, "Nothing above the threshold.")
        : element("div", { class: "targets" }, ...found.map((one, index) => enlarged(gray, one, index))),
    ),
  );
}

const current = () => images.filter((image) => model && image.model === model);
const rows = () => current().flatMap(({ name, found }) => found.map((one) => ({ name, ...one })));

function fillTable() {
  const found = rows();
  const number = (value, digits) => element("td", {}, element("data", { value }, value.toFixed(digits)));
  $("rows").replaceChildren(
    ...found.map(({ name, x, y, score }) =>
      element("tr", {}, element("td", {}, name), number(x, 2), number(y, 2), number(score, 3)),
    ),
  );
  $("table").hidden = !found.length;
  $("save").disabled = !images.length;
}

function save() {
  const link = element("a", { download: "predictions.csv" });
  link.href = URL.createObjectURL(new Blob([toCsv(rows())], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- what the user does ----------------------------------------------------------------------------------------------

function choose(files) {
  $("errors").replaceChildren();
  for (const file of files) (/\.onnx$/i.test(file.name) ? chooseModel : chooseImage)(file);
}

for (const id of ["model-file", "image-files"]) {
  $(id).addEventListener("change", ({ target }) => {
    if (id === "model-file") [...target.files].forEach(chooseModel);
    else choose(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  choose(event.dataTransfer.files);
});
$("threshold").addEventListener("input", ({ target }) => setThreshold(target.valueAsNumber));
$("own").addEventListener("click", () => setThreshold(model.config.threshold));
$("probability").addEventListener("change", () => images.forEach(draw));
$("save").addEventListener("click", save);
$("clear").addEventListener("click", () => {
  images.forEach(remove);
  fillTable();
  summarise();
});

// --- what the address says: ?model=FILE&image=FILE&image=FILE&threshold=NUMBER ---------------------------------------

async function fetched(path) {
  const name = path.split("/").pop();
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw new Error("it cannot be had; only files in the folder of this page can");
  }
  if (!response.ok) throw new Error(`the server says ${response.status} ${response.statusText}`);
  return new File([await response.blob()], name);
}

function start() {
  $("serve").remove();
  const path = query.get("model");
  enqueue(path ?? "model.onnx", async () => {
    const file = await fetched(path ?? "model.onnx").catch((error) => {
      if (path) throw error; // a model beside the page is not needed
    });
    if (file) await load(file);
    const value = Number(query.get("threshold") ?? NaN);
    if (file && Number.isFinite(value)) setThreshold(value);
  });
  for (const image of query.getAll("image")) enqueue(image, async () => chooseImage(await fetched(image)));
}

start();
