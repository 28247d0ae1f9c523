// Draws the structures of the page on canvases, without any library: spheres for particles, sticks by element and a tube
// along each chain. What is nearer is drawn later and in stronger colours. Coordinates are in 0.1 nm.
(() => {
  "use strict";
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const COLOURS = { C: "#8a8f98", N: "#3b6fd4", O: "#d83a34", H: "#dfe3e8", P: "#e08a1e", S: "#d8b500", F: "#5fbf4a",
    Cl: "#3fae49", Ar: "#4f9fb5" };
  const OTHER = "#b06fb8";
  const STICK = scene.kind === "chains" ? 0.14 : 0.22, TUBE = 0.42, THIN = 0.07;
  const STEPS = 6;  // pieces of tube between two atoms
  const together = document.getElementById("together");
  const others = document.getElementById("others");

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mix = (a, b, t) => a.map((x, i) => x + (b[i] - x) * t);
  const css = (c) => `rgb(${c.map(Math.round).join(",")})`;
  const WHITE = [255, 255, 255], BLACK = [20, 24, 32];
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  function rainbow(t) {  // blue, green, yellow, red
    const stops = ["#3566c9", "#2f9e8f", "#e0b02c", "#cf3e36"].map(rgb), x = t * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(x));
    return mix(stops[i], stops[i + 1], x - i);
  }

  const points = (flat) => {
    const found = [];
    for (let i = 0; i < flat.length; i += 3) found.push([flat[i], flat[i + 1], flat[i + 2]]);
    return found;
  };

  function spline(p, q, r, s, t) {  // Catmull and Rom
    return q.map((_, k) => 0.5 * (2 * q[k] + (r[k] - p[k]) * t + (2 * p[k] - 5 * q[k] + 4 * r[k] - s[k]) * t * t
      + (3 * q[k] - p[k] - 3 * r[k] + s[k]) * t * t * t));
  }

  // Pieces of everything in one structure: {a, b, r, colour, join}, with a = b for a sphere.
  function pieces(xyz, radius) {
    const found = [];
    const colour = scene.elements.map((e) => rgb(COLOURS[e] || "#c678b4"));
    if (scene.kind === "particles") {
      xyz.forEach((p, i) => found.push({ a: p, b: p, r: radius, colour: colour[i] }));
      return found;
    }
    for (const [i, j] of scene.bonds) {
      const middle = xyz[i].map((x, k) => 0.5 * (x + xyz[j][k]));
      found.push({ a: xyz[i], b: middle, r: STICK, colour: colour[i] });
      found.push({ a: middle, b: xyz[j], r: STICK, colour: colour[j] });
    }
    for (const trace of scene.traces) {
      const n = trace.length;
      const at = (i) => xyz[trace[clamp(i, 0, n - 1)]];
      for (let i = 0; i < n - 1; i++) {
        for (let k = 0; k < STEPS; k++) {
          const ends = [k, k + 1].map((m) => spline(at(i - 1), at(i), at(i + 1), at(i + 2), m / STEPS));
          found.push({ a: ends[0], b: ends[1], r: TUBE, colour: rainbow((i + (k + 0.5) / STEPS) / (n - 1)) });
        }
      }
    }
    return found;
  }

  const thin = (xyz) => scene.other_bonds.map(([i, j]) => ({ a: xyz[i], b: xyz[j], r: THIN, colour: rgb(OTHER) }));
  const identity = () => [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const times = (m, n) => m.map((row) => n[0].map((_, j) => row.reduce((sum, x, k) => sum + x * n[k][j], 0)));
  const apply = (m, p) => m.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
  const about = (dx, dy) => {
    const [cx, sx, cy, sy] = [Math.cos(dy), Math.sin(dy), Math.cos(dx), Math.sin(dx)];
    return times([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]);
  };

  const views = [...document.querySelectorAll("canvas[data-state]")].map((canvas) => {
    const data = scene.views.find((one) => String(one.state) === canvas.dataset.state);
    const xyz = points(data.xyz);
    return { canvas, main: pieces(xyz, scene.radius), more: data.others.flatMap((one) => thin(points(one))),
      size: Math.max(...xyz.map((p) => Math.hypot(...p))) + Math.max(scene.radius, 1.0), turn: identity(), zoom: 1,
      waiting: false, fingers: new Map() };
  });
  const largest = Math.max(...views.map((view) => view.size));  // all to one scale

  function later(view) {
    if (view.waiting) return;
    view.waiting = true;
    requestAnimationFrame(() => { view.waiting = false; draw(view); });
  }

  function draw(view) {
    const canvas = view.canvas, ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const far = 5 * largest, scale = Math.min(0.48 * width, 0.6 * height) / largest * view.zoom;
    const place = (p) => {
      const q = apply(view.turn, p), s = scale * far / (far - q[2]);
      return { x: width / 2 + s * q[0], y: height / 2 - s * q[1], z: q[2], s };
    };
    const shown = others && others.checked ? view.main.concat(view.more) : view.main;
    const items = [];
    for (const piece of shown) {
      const a = place(piece.a), b = piece.a === piece.b ? a : place(piece.b);
      const item = { a, b, r: piece.r * a.s, fade: clamp(0.2 - 0.4 * (a.z + b.z) / 2 / view.size, 0, 0.6), colour: piece.colour };
      const z = (a.z + b.z) / 2;
      items.push({ ...item, z, layer: "core" });
      if (a === b || piece.r === THIN) continue;
      items.push({ ...item, z: z - piece.r, layer: "edge" });
      if (item.r > 1.6) items.push({ ...item, z: z + 0.7 * piece.r, layer: "light" });
    }
    items.sort((p, q) => p.z - q.z);
    for (const item of items) (item.a === item.b ? ball : stick)(pen, item);
  }

  function line(pen, a, b, width, colour, dx = 0, dy = 0) {
    pen.strokeStyle = css(colour);
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(a.x + dx, a.y + dy);
    pen.lineTo(b.x + dx, b.y + dy);
    pen.stroke();
  }

  function stick(pen, { a, b, r, fade, colour, layer }) {
    const dim = (c) => mix(c, WHITE, fade);
    pen.lineCap = "round";
    if (layer === "edge") line(pen, a, b, 2 * r + 2, dim(mix(colour, BLACK, 0.65)));
    else if (layer === "light") line(pen, a, b, 0.6 * r, dim(mix(colour, WHITE, 0.35)), -0.2 * r, -0.35 * r);
    else line(pen, a, b, 2 * r, dim(mix(colour, BLACK, 0.1)));
  }

  function ball(pen, { a, r, fade, colour }) {
    const light = pen.createRadialGradient(a.x - 0.35 * r, a.y - 0.4 * r, 0.1 * r, a.x, a.y, r);
    const dim = (c) => css(mix(c, WHITE, fade));
    light.addColorStop(0, dim(mix(colour, WHITE, 0.75)));
    light.addColorStop(0.55, dim(colour));
    light.addColorStop(1, dim(mix(colour, BLACK, 0.45)));
    pen.fillStyle = light;
    pen.strokeStyle = dim(mix(colour, BLACK, 0.65));
    pen.lineWidth = 1;
    pen.beginPath();
    pen.arc(a.x, a.y, r, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
  }

  const those = (view) => (together.checked ? views : [view]);
  function turn(view, dx, dy) {
    for (const one of those(view)) {
      one.turn = times(about(dx, dy), one.turn);
      later(one);
    }
  }
  function zoom(view, factor) {
    for (const one of those(view)) {
      one.zoom = clamp(one.zoom * factor, 0.3, 8);
      later(one);
    }
  }
  function reset(chosen) {
    for (const one of chosen) {
      one.turn = identity();
      one.zoom = 1;
      later(one);
    }
  }

  const KEYS = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };
  for (const view of views) {
    const { canvas, fingers } = view;
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      if (fingers.size === 1) {
        turn(view, (now[0] - before[0]) / 120, (now[1] - before[1]) / 120);
      } else {
        const other = [...fingers.entries()].find(([id]) => id !== event.pointerId)[1];
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) + 1;
        zoom(view, apart(now) / apart(before));
      }
      fingers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) return;  // the page scrolls until the structure is clicked
      event.preventDefault();
      zoom(view, Math.exp(-event.deltaY / 600));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key in KEYS) turn(view, ...KEYS[event.key]);
      else if (event.key === "+" || event.key === "=") zoom(view, 1.15);
      else if (event.key === "-" || event.key === "_") zoom(view, 1 / 1.15);
      else if (event.key === "0" || event.key === "Home") reset(those(view));
      else return;
      event.preventDefault();
    });
    if (window.ResizeObserver) new ResizeObserver(() => later(view)).observe(canvas);
    later(view);
  }
  document.getElementById("upright").addEventListener("click", () => reset(views));
  if (others) others.addEventListener("change", () => views.forEach(later));
  document.querySelector(".tools").hidden = false;
})();
