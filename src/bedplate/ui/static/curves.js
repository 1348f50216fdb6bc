// Curves of metrics. Each element with data-curves names the JSON it draws:
// {"curves": [{"run", "name", "key", "steps", "times", "values", "after"}]}; a value is null where there is a gap.
// They are fetched when they come into view; those with data-live get what is logged later, until the run has ended.
(() => {
  const EVERY = 2000, DENSE = 1000, LINES = 10;
  const controls = document.querySelector("[data-curve-controls]");
  const figures = [...document.querySelectorAll("[data-curves]")];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const setting = (name) => controls?.elements[name]?.value;
  const whole = new Intl.NumberFormat("en");

  const shown = (v) => {
    if (v == null) return "–";
    const size = Math.abs(v);
    if (Number.isInteger(v) && size < 1e12) return whole.format(v);
    if (size < 1e-4 || size >= 1e7) return v.toExponential(4);
    const digits = Math.max(0, 4 - Math.floor(Math.log10(size)));
    return v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  const tick = (v) => (Number.isInteger(v) || (Math.abs(v) >= 1e-4 && Math.abs(v) < 1e7) ? v.toLocaleString("en", { maximumSignificantDigits: 5 }) : v.toExponential());
  const span = (seconds) => {
    const s = Math.abs(seconds);
    if (s < 120) return `${+seconds.toFixed(1)} s`;
    if (s < 7200) return `${Math.round(seconds / 60)} min`;
    return `${+(seconds / 3600).toFixed(1)} h`;
  };
  const moment = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";

  // Times of day along an axis, with the date below the first of them.
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  function clock(ticks) {
    const wide = ticks[ticks.length - 1] - ticks[0];
    return ticks.map((seconds, i) => {
      const time = new Date(seconds * 1000), day = `${time.getUTCDate()} ${MONTHS[time.getUTCMonth()]}`;
      if (wide > 2 * 86400) return day;
      const hour = time.toISOString().slice(11, wide > 600 ? 16 : 19);
      return i ? hour : `${hour}\n${day}`;
    });
  }

  // One curve along the chosen axis: its points in order, the last of those at one place.
  function along(curve, axis) {
    const at = { step: (i) => curve.steps[i], time: (i) => curve.times[i] / 1000, relative: (i) => (curve.times[i] - curve.start) / 1000 }[axis];
    const order = curve.steps.map((_, i) => i);
    if (axis !== "step") order.sort((a, b) => curve.times[a] - curve.times[b]);
    const xs = [], ys = [];
    for (const i of order) {
      const x = at(i);
      if (xs.length && xs[xs.length - 1] === x) ys[ys.length - 1] = curve.values[i];
      else { xs.push(x); ys.push(curve.values[i]); }
    }
    return [xs, ys];
  }

  // An exponential mean without the pull towards zero at its beginning; gaps stay gaps.
  function smoothed(ys, weight) {
    let mean = 0, counted = 0;
    return ys.map((y) => {
      if (y == null) return null;
      mean = weight * mean + (1 - weight) * y;
      counted += 1;
      return mean / (1 - weight ** counted);
    });
  }

  function label(figure, curve) {
    return figure.dataset.lines === "runs" ? curve.name : curve.key;
  }

  function draw(figure) {
    const box = figure.querySelector(".plot");
    figure.plot?.destroy();
    figure.plot = null;
    box.replaceChildren();
    const axis = setting("axis") || "step", log = setting("scale") === "log", weight = Number(setting("smooth") || 0);
    const curves = figure.detail || figure.curves;
    const legend = figure.querySelector(".legend");
    const positive = (y) => (log && y <= 0 ? null : y);
    const tables = [], series = [{}], entries = [];
    for (const curve of curves) {
      const number = figure.dataset.lines === "runs" ? figure.runs.indexOf(curve.run) : figure.keys.indexOf(curve.key);
      const stroke = colour(`--line-${number % LINES}`);
      const [xs, ys] = along(curve, axis);
      const raw = ys.map(positive), few = xs.length <= 30;
      const columns = [xs];
      if (weight > 0) {
        columns.push(raw);
        series.push({ stroke: stroke + "55", width: 1, points: { show: false } });
      }
      columns.push(weight > 0 ? smoothed(ys, weight).map(positive) : raw);
      series.push({ stroke, width: 1.75, points: { show: few, size: 5, fill: stroke } });
      tables.push(columns);
      entries.push({ name: label(figure, curve), number: number % LINES, at: series.length - 1, last: curve.values.findLast((v) => v != null) });
    }
    const values = legend.querySelectorAll("output");
    if (values.length !== entries.length) {
      legend.replaceChildren(...entries.map((entry) => {
        const item = document.createElement("li"), swatch = document.createElement("span");
        const name = document.createElement("span"), value = document.createElement("output");
        swatch.className = `swatch line-${entry.number}`;
        name.className = "clip";
        name.textContent = name.title = entry.name;
        item.append(swatch, name, value);
        return item;
      }));
    }
    const outputs = [...legend.querySelectorAll("output")];
    const latest = () => entries.forEach((entry, i) => { outputs[i].textContent = shown(entry.last); });
    latest();
    if (!tables.length || !tables.some((table) => table[table.length - 1].some((v) => v != null))) {
      box.textContent = curves.length ? (log ? "No value above zero." : "No finite value.") : "Nothing was logged yet.";
      return;
    }
    const joined = tables.length > 1 ? uPlot.join(tables) : tables[0];
    const look = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const foot = axis === "step" ? (u, ticks) => ticks.map((v) => (Number.isInteger(v) ? whole.format(v) : "")) : axis === "relative" ? (u, ticks) => ticks.map(span) : (u, ticks) => clock(ticks);
    figure.plot = new uPlot({
      width: box.clientWidth, height: 210, series, legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { time: axis === "time", range: (u, min, max) => (joined[0].length === 1 ? [joined[0][0] - 1, joined[0][0] + 1] : [min, max]) }, y: { distr: log ? 3 : 1 } },
      axes: [{ ...look, size: axis === "time" ? 44 : 30, space: 64, values: foot }, { ...look, size: 64, values: (u, ticks) => ticks.map((v) => (v == null ? "" : tick(v))) }],
      hooks: {
        setCursor: [(u) => {
          if (u.cursor.idx == null) { latest(); figure.querySelector("figcaption").dataset.at = ""; return; }
          const x = u.data[0][u.cursor.idx];
          figure.querySelector("figcaption").dataset.at = axis === "step" ? `step ${whole.format(x)}` : axis === "time" ? moment(x) : span(x);
          entries.forEach((entry, i) => {
            let at = u.cursor.idx;
            while (at > 0 && u.data[entry.at][at] === undefined) at -= 1;
            outputs[i].textContent = shown(u.data[entry.at][at]);
          });
        }],
        setSelect: [(u) => {
          if (axis !== "step" || u.select.width < 2 || !figure.curves.some((curve) => curve.steps.length >= DENSE)) return;
          const [first, last] = [u.select.left, u.select.left + u.select.width].map((x) => Math.round(u.posToVal(x, "x")));
          zoom(figure, first, last);
        }],
      },
    }, joined, box);
    box.ondblclick = () => { if (figure.detail) { figure.detail = null; draw(figure); } };
  }

  // A curve of many points is drawn from some of them; a part that is looked at closely gets its own.
  async function zoom(figure, first, last) {
    const answer = await fetched(`${figure.dataset.curves}&steps=${first}:${last}`);
    if (!answer?.curves.length) return;
    figure.detail = answer.curves.map((curve) => ({ ...curve, start: curve.times[0] }));
    draw(figure);
  }

  async function fetched(address) {
    const answer = await fetch(address, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }

  async function load(figure) {
    try {
      const answer = await fetched(figure.dataset.curves);
      figure.curves = answer.curves.map((curve) => ({ ...curve, start: curve.times.reduce((a, b) => Math.min(a, b)) }));
      draw(figure);
    } catch (error) {
      figure.querySelector(".plot").textContent = `The curve could not be loaded: ${error.message}`;
    }
  }

  // What was logged since, for each run and metric that the figure asks for.
  async function follow(figure) {
    const known = new Map(figure.curves.map((curve) => [curve.run + " " + curve.key, curve]));
    const places = figure.runs.flatMap((run) => figure.keys.map((key) => known.get(run + " " + key)?.after ?? ""));
    const answer = await fetched(figure.dataset.curves + places.map((place) => `&after=${encodeURIComponent(place)}`).join(""));
    let grown = false;
    for (const more of answer.curves) {
      const curve = known.get(more.run + " " + more.key);
      grown = true;
      if (!curve || curve.steps.length > 2 * DENSE) { await load(figure); break; }
      more.steps.forEach((step, i) => {
        let at = curve.steps.length;
        while (at > 0 && curve.steps[at - 1] > step) at -= 1;
        curve.steps.splice(at, 0, step);
        curve.times.splice(at, 0, more.times[i]);
        curve.values.splice(at, 0, more.values[i]);
      });
      curve.after = more.after;
    }
    if (grown && !figure.detail) draw(figure);
    if (!answer.running) delete figure.dataset.live;
  }

  async function turn() {
    for (const figure of figures.filter((each) => each.visible && each.curves && "live" in each.dataset)) {
      if (document.hidden) break;
      try { await follow(figure); } catch { /* the next turn tries again */ }
    }
    if (figures.some((figure) => "live" in figure.dataset)) setTimeout(turn, EVERY);
  }

  const seen = new IntersectionObserver((changes) => {
    for (const change of changes) {
      change.target.visible = change.isIntersecting;
      if (change.isIntersecting && !change.target.asked) { change.target.asked = true; load(change.target); }
    }
  }, { rootMargin: "200px" });
  for (const figure of figures) {
    const asked = new URL(figure.dataset.curves, location.href).searchParams;
    figure.runs = asked.getAll("run");
    figure.keys = asked.getAll("key");
    seen.observe(figure);
  }
  setTimeout(turn, EVERY);

  const redraw = () => figures.forEach((figure) => figure.curves && draw(figure));
  controls?.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) return;
    const address = new URL(location.href);
    address.searchParams.set(event.target.name, event.target.value);
    history.replaceState(null, "", address);
    redraw();
  });
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let timer;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(redraw, 150); });
})();
