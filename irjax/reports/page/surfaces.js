// Draws surfaces over pixels, coloured by height; dragging, or the arrow keys, turns them.
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];
function viridis(value) {
  const place = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1), first = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return `rgb(${VIRIDIS[first].map((low, i) => Math.round(low + (place - first) * (VIRIDIS[first + 1][i] - low))).join()})`;
}
function surface(canvas) {
  const {values, width, height, left, top, step, low, high, unit} = JSON.parse(canvas.dataset.surface);
  const heights = Uint8Array.from(atob(values), letter => letter.charCodeAt(0));
  let turn = Math.PI / 4, tilt = 0.49, from = null;
  function draw() {
    const scale = window.devicePixelRatio || 1, wide = canvas.clientWidth, tall = wide * 0.92;
    if (!wide) return;
    canvas.width = wide * scale;
    canvas.height = tall * scale;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const soft = style.getPropertyValue("--soft"), line = style.getPropertyValue("--line"), ink = style.getPropertyValue("--ink");
    pen.scale(scale, scale);
    const [cos, sin] = [Math.cos(turn), Math.sin(turn)], span = wide * 0.54, lift = wide * 0.4 * Math.cos(tilt);
    // x to the right, y towards the viewer: the image's y points down. The last is the depth, near ones later.
    const place = (x, y, z) => {
      const a = x - 0.5, b = y - 0.5, depth = a * sin + b * cos;
      return [wide * 0.53 + (a * cos - b * sin) * span, tall * 0.62 + depth * Math.sin(tilt) * span - z * lift, depth];
    };
    const path = points => {
      pen.beginPath();
      points.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
    };
    pen.font = `${Math.min(Math.max(wide / 14, 8), 11)}px system-ui, sans-serif`;
    pen.lineWidth = 1;
    const corners = [[0, 0], [1, 0], [1, 1], [0, 1]], depths = corners.map(([x, y]) => place(x, y, 0)[2]);
    const far = depths.indexOf(Math.min(...depths)), near = (far + 2) % 4;
    const behind = [corners[(far + 1) % 4], corners[far], corners[(far + 3) % 4]];
    behind.sort((p, q) => place(...p, 0)[0] - place(...q, 0)[0]);
    for (const level of [0, 0.5, 1]) {
      const ends = [behind[0], corners[far], behind[2]].map(p => place(...p, level));
      path(ends);
      pen.strokeStyle = line;
      pen.stroke();
      pen.fillStyle = soft;
      pen.textAlign = "right";
      pen.fillText(Number((low + level * (high - low)).toPrecision(3)), ends[0][0] - 3, ends[0][1] + 4);
    }
    path(corners.map(p => place(...p, 0)));
    pen.fillStyle = viridis(0);
    pen.fill();
    const quads = [];
    for (let row = 0; row + 1 < height; row++)
      for (let column = 0; column + 1 < width; column++) {
        const at = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
        const z = at.map(([r, c]) => heights[r * width + c] / 255), mean = (z[0] + z[1] + z[2] + z[3]) / 4;
        if (mean < 0.004) continue;  // at the floor, which is drawn
        const points = at.map(([r, c], i) => place(c / (width - 1), r / (height - 1), z[i]));
        quads.push({points, mean, depth: points[0][2] + points[2][2]});
      }
    quads.sort((p, q) => p.depth - q.depth);
    for (const {points, mean} of quads) {
      path(points);
      pen.closePath();
      pen.fillStyle = pen.strokeStyle = viridis(mean);
      pen.fill();
      pen.lineWidth = 0.4;
      pen.stroke();
    }
    // The two edges of the floor that are near, with what they are; one above the other where there is no room.
    pen.fillStyle = soft;
    const across = `x ${left} to ${left + step * (width - 1)}`, down = `y ${top} to ${top + step * (height - 1)}`;
    const room = pen.measureText(across).width + pen.measureText(down).width + 8 < wide;
    for (const other of [corners[(near + 1) % 4], corners[(near + 3) % 4]]) {
      const [p, q] = [place(...corners[near], 0), place(...other, 0)], right = q[0] > p[0];
      path([p, q]);
      pen.lineWidth = 1;
      pen.strokeStyle = soft;
      pen.stroke();
      pen.textAlign = right ? "right" : "left";
      pen.fillText(corners[near][1] === other[1] ? across : down, right ? wide - 2 : 2, tall - (right && !room ? 14 : 4));
    }
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.fillText(unit, 2, 12);
  }
  const turned = (across, down) => {
    turn -= across;
    tilt = Math.min(Math.max(tilt + down, 0.05), Math.PI / 2);
    draw();
  };
  canvas.addEventListener("pointerdown", event => {
    from = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!from) return;
    turned((event.clientX - from[0]) / 90, (event.clientY - from[1]) / 120);
    from = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]}[event.key];
    if (step) turned(...step), event.preventDefault();
  });
  draw();
  new ResizeObserver(draw).observe(canvas);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
}
function drawSurfaces() {
  document.querySelectorAll("canvas.surface:not([data-drawn])").forEach(canvas => {
    canvas.dataset.drawn = "";
    surface(canvas);
  });
}
drawSurfaces();
