"use strict";

(() => {
  const element = (id) => document.getElementById(id);
  const index = JSON.parse(element("explorer-index").textContent);
  const choice = {};
  for (const name of ["suite", "dataset", "metric", "axis", "lines", "scale"]) choice[name] = element(`choose-${name}`);
  const plot = element("explorer-plot"), optimizers = element("choose-optimizers");
  const unpacked = new Map();

  // Blocks are unpacked when they are first shown, so that the page is there before them.
  function unpack(name) {
    if (!unpacked.has(name)) {
      const packed = Uint8Array.from(atob(element(`block-${name}`).textContent), (letter) => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      unpacked.set(name, new Response(stream).text());
    }
    return unpacked.get(name);
  }

  function loadPlotly() {
    loadPlotly.done ??= unpack("plotly").then((code) => {
      const script = document.createElement("script");
      script.textContent = code;
      document.head.append(script);
    });
    return loadPlotly.done;
  }

  const curvesOf = new Map();
  function loadCurves(name) {
    if (!curvesOf.has(name)) curvesOf.set(name, unpack(name).then(JSON.parse));
    return curvesOf.get(name);
  }

  function offer(select, options, preferred) {
    const wanted = preferred in options ? preferred : Object.keys(options)[0];
    select.replaceChildren(...Object.entries(options).map(([value, label]) => new Option(label, value)));
    select.value = wanted;
  }

  const labels = (datasets) => Object.fromEntries(Object.entries(datasets).map(([key, own]) => [key, own.label]));
  const chosenDataset = () => index.suites[choice.suite.value][choice.dataset.value];

  function offerDatasets() {
    const datasets = index.suites[choice.suite.value];
    const first = Object.keys(datasets).find((key) => "test_loss" in datasets[key].metrics);
    offer(choice.dataset, labels(datasets), choice.dataset.value || first);
    offerMetrics();
  }

  function offerMetrics() {
    offer(choice.metric, chosenDataset().metrics, choice.metric.value);
  }

  function offerOptimizers(curves) {
    const shown = Object.keys(index.traces).filter((key) => key in curves.optimizers);
    const known = [...optimizers.querySelectorAll("input")].map((input) => input.value);
    if (shown.join() === known.join()) return;
    const off = new Set([...optimizers.querySelectorAll("input:not(:checked)")].map((input) => input.value));
    optimizers.querySelectorAll("label").forEach((label) => label.remove());
    for (const key of shown) {
      const { label, color, dash } = index.traces[key];
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: key, checked: !off.has(key) });
      const swatch = document.createElement("span");
      swatch.className = `swatch ${dash}`;
      swatch.style.setProperty("--line", color);
      const entry = document.createElement("label");
      entry.append(box, swatch, label);
      optimizers.append(entry);
    }
  }

  function medianTraces(key, own) {
    const curve = own.medians[choice.axis.value], values = curve?.values[choice.metric.value];
    if (!values) return [];
    const [center, lower, upper] = values, drawn = index.traces[key];
    const within = curve.x.map((_, at) => at).filter((at) => [lower, upper].every((end) => Number.isFinite(end[at])));
    const around = (end) => within.map((at) => end[at]), x = within.map((at) => curve.x[at]);
    const band = { ...drawn.band, x: [...x, ...x.toReversed()], y: [...around(lower), ...around(upper).toReversed()] };
    const ends = curve.x.map((_, at) => [lower[at], upper[at]]);
    return [band, { ...drawn.median, x: curve.x, y: center, customdata: ends, meta: own.hyperparameters }];
  }

  function positionsOf(runs, seed) {
    if (choice.axis.value === "step") return runs.steps[seed];
    if (choice.axis.value === "time") return runs.time;
    return runs.time.map((time, at) => time + runs.steps[seed][at] * runs.evaluation[seed]);
  }

  // All seeds of an optimizer are one trace with gaps, which is drawn much faster than a trace each.
  function runTraces(key, own) {
    const { runs } = own, values = runs.values[choice.metric.value];
    if (!values || (choice.axis.value === "evaluation" && !runs.evaluation)) return [];
    const x = [], y = [], customdata = [];
    values.forEach((row, seed) => {
      x.push(...positionsOf(runs, seed), null);
      y.push(...row, null);
      customdata.push(...row.map(() => runs.seeds[seed]), null);
    });
    return [{ ...index.traces[key].run, x, y, customdata, meta: own.hyperparameters }];
  }

  // Of an axis of several decades, powers of ten alone are labeled.
  const labeled = (decades) => (decades > 1.5 ? { dtick: Math.ceil(decades / 8) } : {});

  function layoutOf(curves, traces) {
    const { visible } = curves.heights[choice.metric.value], scale = choice.scale.value;
    const layout = structuredClone(index.layout);
    const ends = traces.flatMap(({ x }) => [x.at(0), x.findLast((value) => value !== null)]).map(Math.log10);
    const width = labeled(Math.max(...ends) - Math.min(...ends));
    Object.assign(layout.xaxis, { type: "log", title: { text: index.axes[choice.axis.value] }, ...width });
    Object.assign(layout.yaxis, { type: scale, title: { text: choice.metric.selectedOptions[0].text } });
    if (visible && (scale === "linear" || visible[0] > 0)) {
      const [low, high] = scale === "log" ? visible.map(Math.log10) : visible;
      const margin = 0.05 * (high - low) || 0.1;
      layout.yaxis.range = [low - margin, high + margin];
      if (scale === "log") Object.assign(layout.yaxis, labeled(high - low));
    }
    return layout;
  }

  const written = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : value ?? "–");

  function fillTable(shown) {
    const rows = shown.map(([key, own]) => {
      const values = own.medians[choice.axis.value]?.values[choice.metric.value];
      const [center, lower, upper] = values ? values.map((row) => row.at(-1)) : [];
      const cells = [written(center), `${written(lower)} to ${written(upper)}`, `${Math.round(100 * own.survived)} %`];
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = index.traces[key].label;
      row.append(head, ...[...cells, own.hyperparameters].map((text) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        return cell;
      }));
      return row;
    });
    element("explorer-table").tBodies[0].replaceChildren(...rows);
  }

  function describe(shown) {
    const text = (select) => select.selectedOptions[0].text;
    const what = `${text(choice.metric)} on ${text(choice.dataset)}, suite ${text(choice.suite)}`;
    const lines = choice.lines.value === "medians" ? "medians" : "single seeds";
    const names = shown.map(([key]) => index.traces[key].label).join(", ") || "no optimizer";
    element("explorer-summary").textContent = `${what}, against ${text(choice.axis).toLowerCase()}: ${lines} of ${names}.`;
  }

  let latest = 0;
  async function draw() {
    const mine = ++latest;
    const [curves] = await Promise.all([loadCurves(chosenDataset().block), loadPlotly()]);
    if (mine !== latest) return;
    offerOptimizers(curves);
    if (draw.metric !== `${choice.dataset.value} ${choice.metric.value}`) {
      draw.metric = `${choice.dataset.value} ${choice.metric.value}`;
      choice.scale.value = curves.heights[choice.metric.value].scale;
    }
    const checked = [...optimizers.querySelectorAll("input:checked")].map((input) => input.value);
    const shown = checked.map((key) => [key, curves.optimizers[key]]);
    const tracesOf = choice.lines.value === "medians" ? medianTraces : runTraces;
    const traces = shown.flatMap(([key, own]) => tracesOf(key, own));
    // Bands first, so that none covers a line.
    traces.sort((one, other) => (other.fill === "toself") - (one.fill === "toself"));
    await Plotly.react(plot, traces, layoutOf(curves, traces), index.settings);
    // A screen reader has the summary and the table instead of numbers along axes.
    plot.querySelectorAll("svg.main-svg").forEach((drawing) => drawing.setAttribute("aria-hidden", "true"));
    fillTable(shown);
    describe(shown);
    plot.dataset.drawn = String(mine);
  }

  offer(choice.suite, Object.fromEntries(Object.keys(index.suites).map((name) => [name, name])));
  offer(choice.axis, index.axes);
  offerDatasets();
  choice.suite.addEventListener("change", offerDatasets);
  choice.dataset.addEventListener("change", offerMetrics);
  element("explorer-form").addEventListener("change", draw);
  element("explorer-form").addEventListener("submit", (event) => event.preventDefault());
  // When it comes into sight, or is about to.
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    draw();
  }, { rootMargin: "600px" }).observe(plot);
})();
