// A Plotly figure of thousands of points, drawn on a canvas: Plotly's code alone takes a browser seconds, and its WebGL
// more. Knows what `plots.pareto` puts into a figure: markers, lines, error bars, letters, outlines, a legend.
const AIR = { left: 64, right: 12, top: 30, bottom: 46 };
const NEAR = 20; // pixels within which a point answers
const DIM = 0.25; // of its opacity keeps what is not selected
const DASHES = { dot: [2, 3], dash: [7, 5], longdash: [12, 5], dashdot: [7, 4, 2, 4], longdashdot: [12, 4, 2, 4] };
const TOOLS = [
  ["box", "Box", "Select what is in a rectangle"],
  ["lasso", "Lasso", "Select what a line goes around"],
  ["zoom", "Zoom", "Enlarge a rectangle"],
];

export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".many-chart");
  if (!root) return;
  const chart = (root.sstmergeChart ??= create(root));
  chart.tell = (selection) => setStateValue("selection", selection);
  chart.show(data.figure, data.alt);
}

function create(root) {
  const chart = { mode: "box", hidden: new Set(), marks: [], chosen: null, drag: null, figure: "" };
  const make = (tag, className, into) => {
    const made = document.createElement(tag);
    made.className = className;
    into.append(made);
    return made;
  };
  const tools = make("div", "tools", root);
  const plane = make("div", "plane", root);
  const canvas = make("canvas", "", plane);
  const over = make("canvas", "over", plane);
  const tip = make("div", "tip", plane);
  const legend = make("div", "legend", root);
  tip.hidden = true;
  canvas.setAttribute("role", "img");

  const button = (text, title, press) => {
    const made = make("button", "", tools);
    made.type = "button";
    made.textContent = text;
    made.title = title;
    made.onclick = press;
    return made;
  };
  const modes = TOOLS.map(([mode, text, title]) => {
    const made = button(text, title, () => choose(mode));
    made.dataset.mode = mode;
    return made;
  });
  button("Whole", "Show everything again", () => look(null));
  button("PNG", "Save the picture", save);
  const choose = (mode) => {
    chart.mode = mode;
    for (const one of modes) one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
  };
  choose("box");

  chart.show = (text, alt) => {
    canvas.setAttribute("aria-label", alt);
    if (text === chart.figure) return;
    chart.figure = text;
    const { data, layout } = JSON.parse(text);
    chart.layout = layout;
    chart.traces = data.map(readTrace);
    // Plotly's WebGL lies below everything else
    chart.order = [...chart.traces].sort((one, other) => (other.type === "scattergl") - (one.type === "scattergl"));
    if (layout.uirevision !== chart.revision) {
      chart.revision = layout.uirevision;
      chart.view = null;
      chart.chosen = null;
    }
    root.style.height = `${layout.height}px`;
    list();
    draw();
  };

  function look(view) {
    chart.view = view;
    draw();
  }

  // ------------------------------------------------------------------ the picture
  function draw() {
    const width = plane.clientWidth;
    const height = plane.clientHeight;
    if (!chart.layout || width < 80 || height < 80) return;
    const pen = prepared(canvas, width, height);
    prepared(over, width, height);
    const ink = getComputedStyle(root).color;
    const inner = { left: AIR.left, right: width - AIR.right, top: AIR.top, bottom: height - AIR.bottom };
    const { x: xs, y: ys } = chart.view ?? { x: chart.layout.xaxis.range, y: chart.layout.yaxis.range };
    const across = (value) => inner.left + ((value - xs[0]) / (xs[1] - xs[0])) * (inner.right - inner.left);
    const up = (value) => inner.bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (inner.bottom - inner.top);
    chart.frame = { inner, xs, ys, across, up };
    axes(pen, ink, width, height);
    pen.save();
    pen.beginPath();
    pen.rect(inner.left, inner.top, inner.right - inner.left, inner.bottom - inner.top);
    pen.clip();
    chart.marks = [];
    for (const shape of chart.layout.shapes ?? []) outline(pen, shape);
    for (const trace of chart.order) {
      if (chart.hidden.has(trace.legendgroup ?? trace.name)) continue;
      if (trace.mode.includes("lines")) line(pen, trace);
      bars(pen, trace);
      if (trace.mode.includes("markers")) points(pen, trace);
    }
    pen.restore();
    for (const trace of chart.order) if (trace.mode.includes("text")) letters(pen, trace, ink);
    canvas.dataset.points = String(chart.marks.length);
  }

  function prepared(sheet, width, height) {
    const dense = window.devicePixelRatio || 1;
    sheet.width = Math.round(width * dense);
    sheet.height = Math.round(height * dense);
    sheet.style.width = `${width}px`;
    sheet.style.height = `${height}px`;
    const pen = sheet.getContext("2d");
    pen.scale(dense, dense);
    return pen;
  }

  function axes(pen, ink, width, height) {
    const { inner, xs, ys, across, up } = chart.frame;
    const font = getComputedStyle(root).fontFamily;
    pen.fillStyle = pen.strokeStyle = ink;
    pen.font = `12px ${font}`;
    pen.lineWidth = 1;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const [value, text] of ticks(xs, Math.max(2, (inner.right - inner.left) / 90))) {
      const at = Math.round(across(value)) + 0.5;
      rule(pen, at, inner.top, at, inner.bottom);
      pen.fillText(text, at, inner.bottom + 6);
    }
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [value, text] of ticks(ys, Math.max(2, (inner.bottom - inner.top) / 60))) {
      const at = Math.round(up(value)) + 0.5;
      rule(pen, inner.left, at, inner.right, at);
      pen.fillText(text, inner.left - 6, at);
    }
    pen.font = `13px ${font}`;
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    pen.fillText(chart.layout.xaxis.title?.text ?? "", (inner.left + inner.right) / 2, height - 4);
    pen.save();
    pen.translate(4, (inner.top + inner.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textBaseline = "top";
    pen.fillText(chart.layout.yaxis.title?.text ?? "", 0, 0);
    pen.restore();
  }

  function points(pen, trace) {
    const { inner, across, up } = chart.frame;
    const { marker, x, y } = trace;
    const stamp = (trace.stamp ??= stamped(marker));
    const half = stamp.side / 2;
    const answers = trace.hoverinfo !== "skip";
    for (let place = 0; place < x.length; place++) {
      if (!isNumber(x[place]) || !isNumber(y[place])) continue;
      const left = across(x[place]);
      const top = up(y[place]);
      if (answers) chart.marks.push({ trace, place, left, top });
      if (left < inner.left - half || left > inner.right + half || top < inner.top - half || top > inner.bottom + half) {
        continue;
      }
      const chosen = answers && chart.chosen ? chart.chosen(trace, place) : null;
      pen.globalAlpha = chosen === null ? (marker.opacity ?? 1) : chosen ? 1 : DIM * (marker.opacity ?? 1);
      pen.drawImage(stamp.sheet, left - half, top - half, stamp.side, stamp.side);
    }
    pen.globalAlpha = 1;
  }

  function line(pen, trace) {
    const { across, up } = chart.frame;
    pen.beginPath();
    for (let place = 0; place < trace.x.length; place++) {
      const [left, top] = [across(trace.x[place]), up(trace.y[place])];
      if (place && trace.line?.shape === "vh") pen.lineTo(across(trace.x[place - 1]), top);
      if (place) pen.lineTo(left, top);
      else pen.moveTo(left, top);
    }
    stroke(pen, trace.line);
  }

  function bars(pen, trace) {
    const { across, up } = chart.frame;
    for (const axis of ["x", "y"]) {
      const told = trace[`error_${axis}`];
      if (!told?.array) continue;
      pen.beginPath();
      for (let place = 0; place < trace.x.length; place++) {
        const [x, y] = [trace.x[place], trace.y[place]];
        const [above, below] = [told.array[place], told.arrayminus[place]];
        pen.moveTo(across(axis === "x" ? x - below : x), up(axis === "y" ? y - below : y));
        pen.lineTo(across(axis === "x" ? x + above : x), up(axis === "y" ? y + above : y));
      }
      stroke(pen, { color: told.color, width: told.thickness });
    }
  }

  function outline(pen, shape) {
    const { across, up } = chart.frame;
    let [x, y] = [0, 0];
    pen.beginPath();
    for (const [, letter, numbers] of shape.path.matchAll(/([MLHVZ])([^MLHVZ]*)/g)) {
      const [first, second] = numbers.split(",").map(Number);
      if (letter === "Z") pen.closePath();
      else if (letter === "H") x = first;
      else if (letter === "V") y = first;
      else [x, y] = [first, second];
      if (letter === "M") pen.moveTo(across(x), up(y));
      else if (letter !== "Z") pen.lineTo(across(x), up(y));
    }
    stroke(pen, shape.line);
  }

  function letters(pen, trace, ink) {
    const { across, up } = chart.frame;
    pen.fillStyle = ink;
    pen.font = `${trace.textfont?.weight ?? 400} ${trace.textfont?.size ?? 12}px ${getComputedStyle(root).fontFamily}`;
    pen.textAlign = "center";
    pen.textBaseline = "bottom";
    trace.text.forEach((text, place) => {
      pen.fillText(text, across(trace.x[place]), up(trace.y[place]) - (trace.marker?.size ?? 0) / 2 - 2);
    });
  }

  // ------------------------------------------------------------------ the hand
  const at = (event) => {
    const box = plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const within = ([left, top]) => {
    const { inner } = chart.frame;
    return left >= inner.left && left <= inner.right && top >= inner.top && top <= inner.bottom;
  };
  const nearest = ([left, top]) => {
    let best = null;
    let least = NEAR * NEAR;
    for (const mark of chart.marks) {
      const far = (mark.left - left) ** 2 + (mark.top - top) ** 2;
      if (far <= least) [best, least] = [mark, far]; // of two in one place the upper one
    }
    return best;
  };
  const backwards = ([left, top]) => {
    const { inner, xs, ys } = chart.frame;
    const share = [(left - inner.left) / (inner.right - inner.left), (inner.bottom - top) / (inner.bottom - inner.top)];
    return [xs[0] + share[0] * (xs[1] - xs[0]), ys[0] + share[1] * (ys[1] - ys[0])];
  };

  plane.addEventListener("pointermove", (event) => {
    if (!chart.frame) return;
    if (chart.drag) return dragged(at(event));
    const place = at(event);
    const mark = within(place) ? nearest(place) : null;
    plane.style.cursor = mark ? "pointer" : within(place) ? "crosshair" : "default";
    tell(mark);
  });
  plane.addEventListener("pointerleave", () => tell(null));
  plane.addEventListener("pointerdown", (event) => {
    if (!chart.frame || event.button || !within(at(event))) return;
    plane.setPointerCapture(event.pointerId);
    chart.drag = { path: [at(event)], moved: false };
  });
  plane.addEventListener("pointerup", (event) => {
    const drag = chart.drag;
    chart.drag = null;
    if (!drag) return;
    prepared(over, plane.clientWidth, plane.clientHeight);
    if (!drag.moved) return clicked(nearest(at(event)), event.shiftKey);
    const { inner } = chart.frame;
    const path = drag.path.map(([left, top]) =>
      backwards([clamp(left, inner.left, inner.right), clamp(top, inner.top, inner.bottom)]),
    );
    if (chart.mode === "lasso") return around(path);
    const [first, last] = [path[0], path.at(-1)];
    const x = [first[0], last[0]].sort((one, other) => one - other);
    const y = [first[1], last[1]].sort((one, other) => one - other);
    if (chart.mode === "zoom") return x[1] > x[0] && y[1] > y[0] && look({ x, y });
    select((trace, place) => between(trace.x[place], x) && between(trace.y[place], y), { box: [{ x, y }] });
  });
  plane.addEventListener("pointercancel", () => (chart.drag = null));
  plane.addEventListener("dblclick", () => {
    chart.view = null;
    if (chart.chosen) select(null, {});
    else draw();
  });

  function dragged(place) {
    const { path } = chart.drag;
    const [left, top] = path[0];
    chart.drag.moved ||= Math.hypot(place[0] - left, place[1] - top) > 4;
    if (!chart.drag.moved) return;
    tell(null);
    if (chart.mode === "lasso") path.push(place);
    else chart.drag.path = [path[0], place];
    const pen = prepared(over, plane.clientWidth, plane.clientHeight);
    pen.strokeStyle = getComputedStyle(root).color;
    pen.setLineDash(DASHES.dot);
    pen.beginPath();
    if (chart.mode === "lasso") for (const corner of path) pen.lineTo(...corner);
    else pen.rect(left, top, place[0] - left, place[1] - top);
    pen.stroke();
  }

  const row = (trace, place) => trace.customdata[place * trace.columns];

  function clicked(mark, more) {
    if (!mark) return;
    const rows = new Set(more ? chart.rows : []);
    const own = row(mark.trace, mark.place);
    if (!rows.delete(own)) rows.add(own);
    chart.rows = rows;
    const told = { points: [...rows].map((number) => ({ customdata: [number] })) };
    select(rows.size ? (trace, place) => rows.has(row(trace, place)) : null, told);
  }

  function around(path) {
    const inside = (x, y) =>
      path.reduce((odd, [x1, y1], corner) => {
        const [x2, y2] = path[(corner + 1) % path.length];
        return y1 > y !== y2 > y && x < x1 + ((y - y1) * (x2 - x1)) / (y2 - y1) ? !odd : odd;
      }, false);
    const lasso = [{ x: path.map(([x]) => x), y: path.map(([, y]) => y) }];
    if (path.length > 2) select((trace, place) => inside(trace.x[place], trace.y[place]), { lasso });
  }

  function select(chosen, told) {
    if (!told.points) chart.rows = new Set();
    chart.chosen = chosen;
    draw();
    chart.tell({ points: [], box: [], lasso: [], ...told });
  }

  function tell(mark) {
    tip.hidden = !mark;
    if (!mark) return;
    const { trace, place, left, top } = mark;
    tip.replaceChildren(
      ...hoverLines(trace, place).map((text, number) => {
        const made = document.createElement(number ? "div" : "b");
        made.textContent = text;
        return made;
      }),
    );
    tip.style.borderColor = trace.marker.color;
    const right = left > plane.clientWidth / 2;
    tip.style.left = right ? "" : `${left + 14}px`;
    tip.style.right = right ? `${plane.clientWidth - left + 14}px` : "";
    tip.style.top = `${clamp(top - tip.offsetHeight / 2, 0, Math.max(0, plane.clientHeight - tip.offsetHeight))}px`;
  }

  // ------------------------------------------------------------------ the legend
  function list() {
    legend.replaceChildren();
    if (chart.layout.showlegend === false) return;
    for (const trace of chart.traces) {
      if (trace.showlegend === false) continue;
      const group = trace.legendgroup ?? trace.name;
      const entry = make("button", "", legend);
      entry.type = "button";
      entry.title = "Show or hide; twice: only this";
      entry.setAttribute("aria-pressed", String(!chart.hidden.has(group)));
      const sheet = make("canvas", "", entry);
      const pen = prepared(sheet, 22, 14);
      if (trace.mode.includes("markers")) {
        const stamp = stamped(trace.marker);
        pen.drawImage(stamp.sheet, 11 - stamp.side / 2, 7 - stamp.side / 2, stamp.side, stamp.side);
      } else {
        pen.beginPath();
        pen.moveTo(1, 7);
        pen.lineTo(21, 7);
        stroke(pen, trace.line);
      }
      entry.append(trace.name);
      entry.onclick = (event) => {
        const groups = new Set(chart.traces.map((one) => one.legendgroup ?? one.name).filter(Boolean));
        if (event.detail > 1) chart.hidden = chart.hidden.size === groups.size - 1 ? new Set() : without(groups, group);
        else if (!chart.hidden.delete(group)) chart.hidden.add(group);
        const pressed = [...legend.children];
        const shown = chart.traces.filter((one) => one.showlegend !== false);
        shown.forEach((one, number) =>
          pressed[number].setAttribute("aria-pressed", String(!chart.hidden.has(one.legendgroup ?? one.name))),
        );
        draw();
      };
    }
  }

  function save() {
    const sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [canvas.width, canvas.height];
    const pen = sheet.getContext("2d");
    pen.fillStyle = getComputedStyle(document.querySelector('[data-testid="stApp"]') ?? document.body).backgroundColor;
    pen.fillRect(0, 0, sheet.width, sheet.height);
    pen.drawImage(canvas, 0, 0);
    const link = document.createElement("a");
    link.download = "chart.png";
    link.href = sheet.toDataURL("image/png");
    link.click();
  }

  new ResizeObserver(draw).observe(plane);
  // another theme: the colour of the text changes, over a millisecond
  root.addEventListener("transitionend", (event) => event.target === root && draw());
  return chart;
}

// -------------------------------------------------------------------- what a figure says
function readTrace(told) {
  const trace = { mode: "markers", ...told, x: numbers(told.x), y: numbers(told.y) };
  for (const axis of ["x", "y"]) {
    const bars = told[`error_${axis}`];
    if (bars) trace[`error_${axis}`] = { ...bars, array: numbers(bars.array), arrayminus: numbers(bars.arrayminus) };
  }
  if (told.customdata) {
    trace.columns = Number(String(told.customdata.shape).split(",")[1] ?? 1);
    trace.customdata = numbers(told.customdata);
  }
  return trace;
}

const KINDS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, i2: Int16Array, i1: Int8Array };
KINDS.u4 = Uint32Array;
KINDS.u2 = Uint16Array;
KINDS.u1 = Uint8Array;

function numbers(told) {
  if (!told?.bdata) return told ?? [];
  const text = atob(told.bdata);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return new KINDS[told.dtype](bytes.buffer);
}

function hoverLines(trace, place) {
  const digits = (value, places) => (places === undefined ? String(value) : Number(value).toFixed(Number(places)));
  const filled = trace.hovertemplate.replace(
    /%\{(x|y|text|customdata\[(\d+)\])(?::\.(\d+)f)?\}/g,
    (_, what, column, places) => {
      if (what === "text") return trace.text[place];
      if (what === "x" || what === "y") return digits(trace[what][place], places);
      return digits(trace.customdata[place * trace.columns + Number(column)], places);
    },
  );
  const lines = filled.replace(/<extra>.*<\/extra>/, "").split("<br>");
  return lines.map((line) => plain(line.replace(/<\/?b>/g, "")));
}

function plain(html) {
  const signs = { lt: "<", gt: ">", quot: '"', "#x27": "'", amp: "&" };
  return html.replace(/&(lt|gt|quot|#x27|amp);/g, (_, sign) => signs[sign]);
}

function ticks([low, high], count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) {
    const value = number * step;
    found.push([value, String(Number(value.toPrecision(3))).replace("-", "−")]);
  }
  return found;
}

// -------------------------------------------------------------------- symbols
function stamped(marker) {
  const hollow = marker.symbol.endsWith("-open");
  const edge = marker.line?.width ?? 0;
  const side = marker.size + 2 * edge + 2;
  const dense = (window.devicePixelRatio || 1) * 2;
  const sheet = document.createElement("canvas");
  sheet.width = sheet.height = Math.ceil(side * dense);
  const pen = sheet.getContext("2d");
  pen.scale(sheet.width / side, sheet.width / side);
  pen.translate(side / 2, side / 2);
  pen.fillStyle = marker.color;
  const shape = symbol(marker.symbol.replace(/-open$/, ""), marker.size / 2);
  if (!hollow) pen.fill(shape);
  pen.strokeStyle = hollow ? marker.color : (marker.line?.color ?? marker.color);
  pen.lineWidth = hollow ? Math.max(edge, 1.2) : edge;
  if (pen.lineWidth) pen.stroke(shape);
  return { sheet, side };
}

const turns = (count, radius, start = -90) =>
  Array.from({ length: count }, (_, number) => {
    const angle = ((start + (360 * number) / count) * Math.PI) / 180;
    const far = Array.isArray(radius) ? radius[number % radius.length] : radius;
    return [far * Math.cos(angle), far * Math.sin(angle)];
  });
const CROSS = [[-1, -0.4], [-0.4, -0.4], [-0.4, -1], [0.4, -1], [0.4, -0.4], [1, -0.4], [1, 0.4], [0.4, 0.4], [0.4, 1],
  [-0.4, 1], [-0.4, 0.4], [-1, 0.4]]; // prettier-ignore
const turned = (corners, degrees) => {
  const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  return corners.map(([x, y]) => [x * cos - y * sin, x * sin + y * cos]);
};
const SQUARE = [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]; // prettier-ignore
const WEDGE = [[-1, -1], [1, -1], [1, 1]]; // prettier-ignore
const CORNERS = {
  square: SQUARE,
  diamond: turns(4, 1.25),
  "diamond-tall": [[0, -1.4], [0.7, 0], [0, 1.4], [-0.7, 0]], // prettier-ignore
  "diamond-wide": [[0, -0.7], [1.4, 0], [0, 0.7], [-1.4, 0]], // prettier-ignore
  cross: CROSS,
  x: turned(CROSS, 45),
  "triangle-up": turns(3, 1.2),
  "triangle-down": turns(3, 1.2, 90),
  "triangle-left": turns(3, 1.2, 180),
  "triangle-right": turns(3, 1.2, 0),
  "triangle-ne": WEDGE,
  "triangle-se": turned(WEDGE, 90),
  "triangle-sw": turned(WEDGE, 180),
  "triangle-nw": turned(WEDGE, 270),
  pentagon: turns(5, 1.1),
  hexagon: turns(6, 1.1, 0),
  hexagon2: turns(6, 1.1),
  octagon: turns(8, 1.1, 22.5),
  star: turns(10, [1.4, 0.55]),
  hexagram: turns(12, [1.3, 0.75]),
  "star-triangle-up": turns(6, [1.5, 0.5]),
  "star-triangle-down": turns(6, [1.5, 0.5], 90),
  "star-square": turns(8, [1.3, 0.6], -45),
  "star-diamond": turns(8, [1.4, 0.6]),
  hourglass: [[-1, -1], [1, -1], [-1, 1], [1, 1]], // prettier-ignore
  bowtie: [[-1, -1], [-1, 1], [1, -1], [1, 1]], // prettier-ignore
};
const INSIDE = { cross: [[-1, 0, 1, 0], [0, -1, 0, 1]], x: [[-0.7, -0.7, 0.7, 0.7], [-0.7, 0.7, 0.7, -0.7]] }; // prettier-ignore

function symbol(name, radius) {
  const path = new Path2D();
  const [outside, inside] = /^(circle|square)-(cross|x)$/.exec(name)?.slice(1) ?? [name];
  if (CORNERS[outside]) {
    for (const [x, y] of CORNERS[outside]) path.lineTo(x * radius, y * radius);
    path.closePath();
  } else path.arc(0, 0, radius, 0, 2 * Math.PI);
  for (const [x1, y1, x2, y2] of INSIDE[inside] ?? []) {
    path.moveTo(x1 * radius, y1 * radius);
    path.lineTo(x2 * radius, y2 * radius);
  }
  return path;
}

// -------------------------------------------------------------------- small things
const isNumber = (value) => value !== null && !Number.isNaN(value);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const between = (value, [low, high]) => value >= low && value <= high;
const without = (set, one) => new Set([...set].filter((other) => other !== one));

function rule(pen, x1, y1, x2, y2) {
  pen.globalAlpha = 0.13;
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
  pen.globalAlpha = 1;
}

function stroke(pen, line) {
  pen.strokeStyle = line.color;
  pen.lineWidth = line.width;
  pen.setLineDash(DASHES[line.dash] ?? []);
  pen.stroke();
  pen.setLineDash([]);
}
