"use strict";
// The page asks a transport for games and slices, and draws them. There are two: a server, and data that lies in the page itself.

const $ = (id) => document.getElementById(id);
const SECOND = "#e69f00";
const SECONDS_BETWEEN_LOOKS = 2;

// ---- transports: about(), game(place), slice({of, x, y}, place), ranges(of), progress(), and solve(parameters) where one can

const served = {
  async ask(what, query = {}) {
    const answer = await fetch(`${what}?${new URLSearchParams(query)}`);
    if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
    return answer.json();
  },
  about() { return this.ask("about"); },
  game(place) { return this.ask("game", place); },
  slice(view, place) { return this.ask("slice", { ...place, of: view.of, x: view.x, ...(view.y ? { y: view.y } : {}) }); },
  ranges(of) { return this.ask("ranges", { of }); },
  progress() { return this.ask("progress"); },
  solve(parameters) { return this.ask("solve", parameters); },
};

function embedded(data) {
  const sizes = data.about.games.dims.map((dim) => dim.size);
  const names = data.about.games.dims.map((dim) => dim.name);
  const number = (place) => names.reduce((sum, name, i) => sum * sizes[i] + place[name], 0);
  const statuses = decoded(data.statuses);
  const restored = (value, game) => {
    if (Array.isArray(value)) return value.map((item) => restored(item, game));
    if (value === null || typeof value !== "object") return value;
    if ("slot" in value) return data.arrays[game.arrays[value.slot]];
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, restored(item, game)]));
  };
  return {
    about: async () => data.about,
    progress: async () => ({ statuses: data.progress }),
    ranges: async (of) => ({ figures: data.ranges, scalar: data.scalars[of].range }),
    async game(place) {
      const game = data.games[number(place)];
      const { figures, metrics } = data.skeletons[game.skeleton];
      return { ...game.own, figures: restored(figures, game), metrics: metrics.map((one, i) => ({ ...one, value: game.values[i] })) };
    },
    async slice(view, place) {
      const { figure, places } = structuredClone(data.slices[`${view.x}|${view.y || ""}`]);
      const values = decoded(data.scalars[view.of].values);
      const [trace, crosses] = figure.data;
      const along = "point" in places ? ["point"] : view.y ? [view.y, view.x] : [view.x];
      let games = [{ ...place }];
      for (const dim of along) games = games.flatMap((at) => places[dim].map((i) => ({ ...at, [dim]: i })));
      const numbers = games.map(number);
      const drawn = numbers.map((n) => (statuses[n] ? values[n] : NaN));
      const label = { text: data.scalars[view.of].symbol, side: "right" };
      const columns = along.length === 2 ? places[view.x].length : 1;
      if (trace.type === "heatmap") {
        trace.z = places[view.y].map((_, row) => drawn.slice(row * columns, (row + 1) * columns));
        trace.colorbar.title = label;
      } else if (trace.marker && trace.mode === "markers") {
        trace.marker.color = drawn;
        trace.marker.colorbar.title = label;
      } else {
        trace.y = drawn;
        figure.layout.yaxis.title.text = label.text;
      }
      Object.assign(crosses, { x: [], y: [], text: [] });
      numbers.forEach((n, i) => {
        if (statuses[n] <= 1) return;
        crosses.x.push(trace.x[along.length === 2 ? i % columns : i]);
        crosses.y.push(along.length === 2 ? trace.y[Math.floor(i / columns)] : trace.y[i]);
        crosses.text.push(data.status_names[statuses[n]].replaceAll("_", " "));
      });
      return { figure, places };
    },
  };
}

function decoded(array) {
  if (Array.isArray(array)) return array.flat();
  const bytes = Uint8Array.from(atob(array.bdata), (character) => character.charCodeAt(0));
  const kinds = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array };
  return new kinds[array.dtype](bytes.buffer);
}

// ---- state

const data = $("sweep");
const transport = data ? embedded(JSON.parse(data.textContent)) : served;
const state = { place: {}, values: {}, solving: false, pinned: null, view: { of: "", x: "", y: "" }, ranges: null };
let about, parameters, shown = null, slice = null, sliceKey = "";

// Runs `task` once at a time; of the calls that come meanwhile only the last counts.
function latest(task) {
  let running = null, again = false;
  return () => {
    again = true;
    running ??= (async () => {
      while (again) {
        again = false;
        await task();
      }
      running = null;
    })();
    return running;
  };
}

const refresh = latest(async () => {
  document.body.classList.add("busy");
  try {
    shown = await gather();
    $("message").textContent = "";
    await draw();
  } catch (error) {
    $("message").textContent = error.message;
  }
  document.body.classList.remove("busy");
  document.body.dataset.moves = Number(document.body.dataset.moves || 0) + 1;
});

async function gather() {
  if (state.solving) $("status").textContent = "solving… (the first game of its kind is compiled for, some seconds)";
  const first = await (state.solving ? transport.solve(given(state.values)) : transport.game(state.place));
  const beside = $("beside").value;
  const alone = beside === "alone" && transport.solve({ ...given(first.parameters), coupling: "none" });
  const second = beside === "pinned" ? state.pinned : await (alone || null);
  if (about.games) {
    const rest = { ...state.place };
    const key = () => JSON.stringify([state.view, rest]);
    delete rest[state.view.x];
    delete rest[state.view.y];
    delete rest.point;
    if (key() !== sliceKey) {
      slice = await transport.slice(state.view, state.place);
      sliceKey = key();
    }
    if ($("lock").checked && state.ranges?.of !== state.view.of) {
      state.ranges = { of: state.view.of, ...(await transport.ranges(state.view.of)) };
    }
  }
  return { first, second, solved: state.solving };
}

// Empty texts stand for parameters that are not given.
const given = (values) => Object.fromEntries(parameters.map(({ name }) => [name, values[name] ?? ""]));

// ---- drawing

async function draw() {
  const { first, second, solved } = shown;
  const failed = [first, second].some((game) => game && !["converged", "pending"].includes(game.status));
  document.body.classList.toggle("failed", failed);
  document.body.classList.toggle("beside", Boolean(second));
  const how = { true: "solved here", false: "" }[solved];
  const words = (game) => game.status.replaceAll("_", " ");
  $("status").textContent = [how, words(first), second && `beside: ${words(second)}`].filter(Boolean).join(", ");
  $("status").title = [first, second].map((game) => game?.explanation).filter(Boolean).join(" ");
  if (failed) $("message").textContent = $("status").title;
  tell(first, second);
  showValues(first.parameters);
  const names = about.figures.map(({ name }) => name);
  for (const name of names) await put(name, combined(name, first.figures[name], second?.figures[name]));
  if (slice) await put("slice", marked(slice));
}

async function put(name, { data, layout }) {
  const div = document.querySelector(`[data-figure="${name}"] .plot`);
  const config = { displaylogo: false, responsive: true, plotGlPixelRatio: Math.min(window.devicePixelRatio, 2) };
  // plotly.js notes a camera as the mouse lets go of it, still gliding: where it has come to rest is noted here, or it would spring back.
  for (const { _scene } of Object.values(div._fullLayout ?? {}).filter((part) => part?._scene)) _scene.saveLayout(div.layout);
  await Plotly.react(div, data, themed(layout), config);
  // what draws surfaces begins at once, while the next figures are prepared
  for (const canvas of div.querySelectorAll("canvas")) canvas.getContext("webgl")?.flush();
}

// The figure of one game; or of two: surfaces next to each other, lines in one frame. What is compared has the same axes.
function combined(name, first, second) {
  const figure = structuredClone(first);
  const other = second && structuredClone(second);
  const both = [figure, ...(other ? [other] : [])];
  if (!figure.data.length || (other && !other.data.length)) return figure;
  const solid = figure.data[0].type === "mesh3d";
  const numbers = both.map((one) => decoded(solid ? one.data[0].z : one.data[0].y));
  const locked = $("lock").checked && state.ranges?.figures[name];
  const range = locked || other ? padded(extent(locked, ...numbers)) : solid ? null : flat(extent(null, ...numbers));
  const titles = ["this game", $("beside").value === "alone" ? "no competition" : "pinned"];
  const { layout } = figure;
  if (!solid) figure.data[0].line.color = colour("--accent");
  if (solid && other) {
    Object.assign(other.data[0], { scene: "scene2" });
    layout.scene2 = structuredClone(layout.scene);
    layout.scene.domain = { x: [0, 0.5] };
    layout.scene2.domain = { x: [0.5, 1] };
    layout.annotations = titles.map((text, i) => (
      { text, showarrow: false, xref: "paper", yref: "paper", x: 0.02 + 0.5 * i, y: 1, xanchor: "left", yanchor: "top" }));
  } else if (other) {
    both.forEach((one, i) => Object.assign(one.data[0], { name: titles[i], showlegend: true }));
    Object.assign(other.data[0].line, { color: SECOND, dash: "dash" });
    Object.assign(layout, { showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" } });
  }
  figure.data = both.flatMap((one) => one.data);
  if (range && solid) {
    for (const scene of [layout.scene, layout.scene2]) if (scene) scene.zaxis.range = range;
    for (const mesh of figure.data) Object.assign(mesh, { cmin: range[0], cmax: range[1] });
  } else if (range) {
    layout.yaxis.range = range;
  }
  return figure;
}

// The slice with a ring around the game that is shown, where it is one of the sweep.
function marked({ figure, places }) {
  const { data, layout } = structuredClone(figure);
  const [trace] = data;
  const nearest = (dim) => places[dim].reduce((best, at, i) => (
    Math.abs(at - state.place[dim]) < Math.abs(places[dim][best] - state.place[dim]) ? i : best), 0);
  const line = trace.type === "scatter";
  const i = nearest("point" in places ? "point" : state.view.x);
  const y = line ? decoded(trace.y)[i] : trace.y[nearest(state.view.y)];
  const ring = { symbol: "circle-open", size: 15, color: line ? SECOND : "white", line: { width: 3 } };
  if (!shown.solved) data.push({ type: "scatter", mode: "markers", x: [trace.x[i]], y: [y], marker: ring, hoverinfo: "skip" });
  const range = $("lock").checked && state.ranges?.scalar;
  if (range && trace.type === "heatmap") Object.assign(trace, { zmin: range[0], zmax: range[1] });
  else if (range && trace.mode === "markers") Object.assign(trace.marker, { cmin: range[0], cmax: range[1] });
  else if (range) layout.yaxis.range = padded(range);
  return { data, layout };
}

function extent(range, ...arrays) {
  let [low, high] = range || [Infinity, -Infinity];
  for (const array of arrays) {
    for (const value of array) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}

// A path that changes by no more than rounding is drawn as the constant that it is.
function flat([low, high]) {
  return high - low < 1e-9 ? [low - 1e-6, high + 1e-6] : null;
}

function padded([low, high]) {
  if (!Number.isFinite(low)) return null;
  const room = 0.03 * (high - low) || 0.03 * Math.abs(high) || 1;
  return [low - room, high + room];
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout) {
  const axis = { exponentformat: "power", gridcolor: colour("--grid"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
  const sceneAxis = { ...axis, showbackground: false, tickfont: { size: 9 } };
  const titled = (along) => ({ ...along, title: { ...along.title, font: { size: 10 } } });
  const result = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true };
  result.font = { color: colour("--text"), size: 10.5 };
  for (const name of ["xaxis", "yaxis"]) if (layout[name]) result[name] = { ...axis, ticklabeloverflow: "allow", ...layout[name] };
  for (const name of ["scene", "scene2"]) {
    if (!layout[name]) continue;
    result[name] = { ...layout[name] };
    for (const along of ["xaxis", "yaxis", "zaxis"]) result[name][along] = { ...sceneAxis, ...titled(layout[name][along]) };
  }
  return result;
}

function tell(first, second) {
  const others = new Map((second?.metrics || []).map((metric) => [metric.name, metric.value]));
  const cell = (value) => element("td", { textContent: value === null || value === undefined ? "–" : Number(value.toPrecision(5)) });
  const rows = first.metrics.map(({ name, label, units, value }) => {
    const head = element("th", { scope: "row", title: `${label}${units && ` (${units})`}` }, name.replaceAll("_", " "));
    const row = element("tr", {}, head, cell(value), ...(second ? [cell(others.get(name))] : []));
    row.dataset.metric = name;
    return row;
  });
  $("metrics").tBodies[0].replaceChildren(...rows);
}

// ---- controls

function element(kind, properties, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function control(name, units, label, ...inputs) {
  const caption = element("label", { htmlFor: inputs[0].id, title: label }, name.replaceAll("_", " "), " ", element("small", {}, units));
  inputs.forEach((input) => input.setAttribute("aria-label", `${label || name}${units && ` (${units})`}`));
  return element("div", { className: "control" }, caption, ...inputs.reverse());
}

function boxFor(parameter) {
  if (parameter.names) {
    const box = element("select", { id: `box-${parameter.name}` }, ...parameter.names.map((name) => element("option", {}, name)));
    box.addEventListener("change", () => chosen(parameter, box.value));
    return box;
  }
  const box = element("input", { id: `box-${parameter.name}`, type: "text", inputMode: "decimal", autocomplete: "off", placeholder: "default" });
  box.addEventListener("change", () => chosen(parameter, box.value.trim()));
  return box;
}

// A value that was typed: a game of the sweep where there is one, and otherwise one to solve.
function chosen(parameter, text) {
  const dim = about.games?.dims.find(({ name }) => name === parameter.name);
  const same = (value) => String(value) === text || (text !== "" && Math.abs(value - Number(text)) <= 1e-11 * Math.abs(value)); // boxes show 12 digits
  const at = dim?.values ? dim.values.findIndex(same) : -1;
  state.values[parameter.name] = text === "" ? null : text;
  const others = about.games ? !state.solving : false;
  if (at >= 0 && others) return go({ [dim.name]: at });
  if (!transport.solve) {
    $("message").textContent = `${parameter.name}: this file holds the games of its sliders, and cannot solve others`;
    return undefined;
  }
  state.solving = true;
  return refresh();
}

function go(place) {
  Object.assign(state.place, place);
  for (const [dim, at] of Object.entries(state.place)) {
    const slider = $(`slider-${dim}`);
    if (slider) slider.value = at;
  }
  if ($("box-point")) $("box-point").value = state.place.point;
  state.solving = false;
  return refresh();
}

function showValues(values) {
  for (const { name, span } of parameters) {
    state.values[name] = values[name] ?? null;
    const box = $(`box-${name}`);
    if (box && box !== document.activeElement) box.value = typeof values[name] === "number" ? Number(values[name].toPrecision(12)) : values[name] ?? "";
    const slider = span && $(`slider-${name}`);
    if (slider && slider !== document.activeElement && typeof values[name] === "number") slider.value = shareOf(values[name], span);
  }
}

function sliderOfDim(dim) {
  const slider = element("input", { id: `slider-${dim.name}`, type: "range", min: 0, max: dim.size - 1, step: 1, value: state.place[dim.name] });
  slider.addEventListener("input", () => go({ [dim.name]: Number(slider.value) }));
  return slider;
}

const STEPS = 1000;
const valueAt = (share, [low, high, log]) => (log ? low * (high / low) ** (share / STEPS) : low + (high - low) * (share / STEPS));
const shareOf = (value, [low, high, log]) => STEPS * (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));

function sliderOfSpan(parameter) {
  const slider = element("input", { id: `slider-${parameter.name}`, type: "range", min: 0, max: STEPS, step: 1 });
  slider.value = parameter.value === null ? STEPS / 2 : shareOf(parameter.value, parameter.span);
  slider.addEventListener("input", () => {
    state.values[parameter.name] = Number(valueAt(Number(slider.value), parameter.span).toPrecision(3));
    state.solving = true;
    refresh();
  });
  return slider;
}

function controlsOfSweep({ dims }) {
  const rows = [];
  for (const dim of dims) {
    const parameter = parameters.find(({ name }) => name === dim.name);
    if (parameter) {
      rows.push(control(dim.name, parameter.units, parameter.label, sliderOfDim(dim), boxFor(parameter)));
    } else {
      const box = element("input", { id: "box-point", type: "text", inputMode: "numeric", value: 0 });
      box.addEventListener("change", () => go({ [dim.name]: Math.min(Math.max(0, Math.trunc(Number(box.value)) || 0), dim.size - 1) }));
      rows.push(control(dim.name, `of ${dim.size.toLocaleString("en")}`, "which game", sliderOfDim(dim), box));
    }
  }
  const alone = parameters.filter(({ name }) => !dims.some((dim) => dim.name === name));
  return [...rows, ...alone.map((parameter) => control(parameter.name, parameter.units, parameter.label, boxFor(parameter)))];
}

function controlsOfLiveGame() {
  return parameters.map((parameter) => {
    const box = boxFor(parameter);
    const slider = parameter.span ? [sliderOfSpan(parameter)] : [];
    return control(parameter.name, parameter.units, parameter.label, ...slider, box);
  });
}

// ---- figures' frames

function frame(name, title, ...extras) {
  const larger = element("button", { type: "button", title: "enlarge, or back (Esc)", textContent: "⤢" });
  const section = element("section", { className: name === "slice" ? "" : "of-game" },
    element("h2", {}, element("span", {}, title), ...extras, larger), element("div", { className: "plot" }));
  section.dataset.figure = name;
  larger.addEventListener("click", () => enlarge(section));
  return section;
}

function enlarge(section) {
  const large = section && !section.classList.contains("large");
  document.querySelectorAll("section.large").forEach((other) => other.classList.remove("large"));
  if (large) section.classList.add("large");
  document.querySelectorAll(".plot").forEach((div) => div.layout && Plotly.Plots.resize(div));
}

function sliceFrame({ dims, parameters: swept, scalars }) {
  const axes = dims[0].name === "point" ? swept.map(({ name }) => name) : dims.map(({ name }) => name);
  const longest = [...axes].sort((a, b) => (sizeOf(b) - sizeOf(a)));
  state.view = { of: scalars.some(({ name }) => name === "mean_spread") ? "mean_spread" : scalars[0].name, x: longest[0], y: longest[1] || "" };
  const choose = (key, label, names) => {
    const box = element("select", { id: `slice-${key}`, ariaLabel: label, title: label },
      ...names.map((name) => element("option", { value: name }, name || "one dim")));
    box.value = state.view[key];
    box.addEventListener("change", () => {
      state.view[key] = box.value;
      if (state.view.x === state.view.y) {
        const other = key === "x" ? "y" : "x";
        state.view[other] = axes.find((name) => name !== box.value);
        $(`slice-${other}`).value = state.view[other];
      }
      refresh();
    });
    return box;
  };
  const lines = dims[0].name === "point" ? [] : [""];
  const boxes = [choose("of", "scalar", scalars.map(({ name }) => name)), choose("x", "across", axes), choose("y", "up", [...axes, ...lines])];
  return frame("slice", "", ...boxes);
  function sizeOf(name) { return dims.find((dim) => dim.name === name)?.size ?? 0; }
}

function jump(event) {
  const point = event.points[0];
  const { figure: { data: [trace] }, places } = slice;
  if ("point" in places) {
    const at = trace.x.findIndex((x, i) => x === point.x && decoded(trace.y)[i] === point.y);
    if (at >= 0) go({ point: places.point[at] });
    return;
  }
  const at = (dim, values, value) => ({ [dim]: places[dim][values.findIndex((one) => String(one) === String(value))] });
  const place = at(state.view.x, trace.x, point.x);
  if (state.view.y) Object.assign(place, at(state.view.y, trace.y, point.y));
  if (Object.values(place).every((i) => i !== undefined)) go(place);
}

// ---- progress of a run that is still writing

async function look() {
  try {
    const { statuses, version } = await transport.progress();
    if (version !== about.version) return location.reload();
    const total = Object.values(statuses).reduce((a, b) => a + b, 0);
    const pending = statuses.pending || 0;
    const failed = total - pending - (statuses.converged || 0);
    const count = (n) => n.toLocaleString("en");
    const words = `${count(total - pending)} of ${count(total)} games done${failed ? `, ${count(failed)} without equilibrium` : ""}`;
    if ($("progress").textContent && $("progress").textContent !== words) {
      sliceKey = "";
      refresh();
    }
    $("progress").textContent = words;
    if (!pending) return undefined;
  } catch (error) {
    $("message").textContent = error.message;
  }
  return setTimeout(look, 1000 * SECONDS_BETWEEN_LOOKS);
}

// ---- start

async function start() {
  about = await transport.about();
  about.figures = about.games?.figures || about.figures;
  parameters = about.games ? about.games.parameters : about.live;
  document.title = $("title").textContent = about.title;
  if (about.games) for (const { name } of about.games.dims) state.place[name] = 0;
  else for (const { name, value } of parameters) state.values[name] = value;
  state.solving = !about.games;
  $("controls").append(...(about.games ? controlsOfSweep(about.games) : controlsOfLiveGame()));
  $("figures").append(...about.figures.map(({ name, title }) => frame(name, title)));
  if (about.games) $("figures").append(sliceFrame(about.games));
  $("about").hidden = !about.summary;
  $("about").querySelector("pre").textContent = (about.summary || []).join("\n");
  $("solve").hidden = !transport.solve || !about.games;
  $("beside").querySelector('[value="alone"]').hidden = !transport.solve;
  $("lock").parentElement.hidden = !about.games;
  await refresh();
  if (about.games) {
    document.querySelector('[data-figure="slice"] .plot').on("plotly_click", jump);
    look();
  }
}

function pin() {
  state.pinned = shown.first;
  $("beside").querySelector('[value="pinned"]').disabled = false;
  $("beside").value = "pinned";
  refresh();
}

function solveHere() {
  state.solving = true;
  refresh();
}

$("solve").addEventListener("click", solveHere);
$("pin").addEventListener("click", pin);
$("lock").addEventListener("change", () => { state.ranges = null; refresh(); });
$("beside").addEventListener("change", refresh);
$("controls").addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && draw());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return enlarge(null);
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input[type="text"], select')) return undefined;
  const keys = { s: "solve", p: "pin", l: "lock" };
  if (keys[event.key] && !$(keys[event.key]).closest("[hidden]")) $(keys[event.key]).click();
  return undefined;
});
start().catch((error) => { $("message").textContent = error.message; });
