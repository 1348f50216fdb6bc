// Line charts with bands. Each element with data-chart names the JSON it draws:
// {"x": [label], "series": [{"label", "values", "low"?, "high"?}]}. Colours come from the style sheet.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawn = new Map();

  function draw(element, data) {
    drawn.get(element)?.destroy();
    element.replaceChildren();
    const unit = element.dataset.unit ? " " + element.dataset.unit : "";
    const percent = data.percent === true;
    const show = (v) => v == null ? "–" : percent ? (100 * v).toFixed(1) + " %" : v.toFixed(1) + unit;
    const tones = ["--accent", "--second", "--good"];
    const columns = [data.x.map((_, i) => i)];
    const series = [{ label: "Window", value: (u, v) => (v == null ? "–" : data.x[v]) }];
    const bands = [];
    data.series.forEach((line, i) => {
      const stroke = colour(tones[i % tones.length]);
      if (line.low && line.high) {
        columns.push(line.high, line.low);
        const hidden = { stroke: "transparent", points: { show: false }, value: (u, v) => show(v) };
        series.push({ ...hidden, label: "upper end" }, { ...hidden, label: "lower end" });
        bands.push({ series: [series.length - 2, series.length - 1], fill: stroke + "33" });
      }
      columns.push(line.values);
      series.push({ label: line.label, stroke, width: 2, points: { size: 7, fill: stroke }, value: (u, v) => show(v) });
    });
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const plot = new uPlot({
      width: element.clientWidth,
      height: 200,
      series,
      bands,
      cursor: { y: false },
      scales: { x: { time: false, range: (u, min, max) => [min - 0.25, max + 0.25] }, y: { range: (u, min, max) => [Math.min(0, min), max * 1.15] } },
      axes: [
        { ...axis, splits: () => columns[0], values: (u, ticks) => ticks.map((i) => data.x[i] ?? "") },
        { ...axis, size: 58, values: (u, ticks) => ticks.map(show) },
      ],
    }, columns, element);
    drawn.set(element, plot);
  }

  async function load(element) {
    try {
      const answer = await fetch(element.dataset.chart, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      element.data = await answer.json();
      draw(element, element.data);
    } catch (error) {
      element.textContent = "The chart could not be loaded: " + error.message;
    }
  }

  const all = () => document.querySelectorAll("[data-chart]");
  const redraw = () => all().forEach((element) => element.data && draw(element, element.data));
  all().forEach(load);
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let timer;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(redraw, 150); });
})();
