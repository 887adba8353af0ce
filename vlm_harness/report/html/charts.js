// Charts of the report, drawn with Observable Plot. Colours follow the page's theme.
"use strict";

const charts = (() => {
  const colours = Array.from({ length: 8 }, (_, i) => `var(--c${i})`);
  const width = () => Math.max(320, Math.min(document.getElementById("main").clientWidth - 48, 1240));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const range = (d) => (d.low == null ? "" : ` (${percent(d.low)} to ${percent(d.high)})`);
  const unique = (values) => [...new Set(values)];
  const cut = (text, n) => (text.length > n ? text.slice(0, n - 1) + "…" : text);
  const colour = (labels) => ({ type: "ordinal", domain: labels, range: labels.map((_, i) => colours[i % colours.length]) });
  const common = (label) => ({ width: width(), style: { fontSize: "13px", fontFamily: "inherit", color: "inherit" }, ariaLabel: label });

  function swatches(labels) {
    return page.element("ul", { class: "swatches" }, labels.map((label, i) => {
      const item = page.element("li", {}, label);
      item.style.setProperty("--of", colours[i % colours.length]);
      return item;
    }));
  }

  /** Rows with a value, an interval and a chance each, in facets: {facet, label, value, low, high, chance}. */
  function dots(rows, name) {
    const labels = unique(rows.map((d) => d.label));
    const facets = unique(rows.map((d) => d.facet));
    const longest = Math.max(...facets.map((f) => f.length), 4);
    const left = Math.min(width() * 0.38, 7.2 * longest + 20);
    const height = 22 * labels.length + 10;
    const many = labels.length > 1;
    return [many && swatches(labels), Plot.plot({
      ...common(name), marginLeft: left, marginRight: 20, height: height * facets.length + 50,
      x: { domain: [0, 1], tickFormat: (v) => `${Math.round(100 * v)}`, label: "percent", labelAnchor: "center", labelArrow: false, labelOffset: 34, grid: true }, marginBottom: 40,
      y: { domain: labels, axis: null }, color: colour(labels),
      fy: { domain: facets, label: null, axis: "left", tickFormat: (v) => cut(v, Math.floor(left / 7)), padding: 0.15 },
      marks: [
        Plot.frame({ stroke: "var(--line)" }),
        Plot.ruleX(unique(rows.filter((d) => d.chance != null).map((d) => `${d.facet} ${d.chance}`)).map((k) => rows.find((d) => `${d.facet} ${d.chance}` === k)),
          { x: "chance", fy: "facet", stroke: "var(--soft)", strokeDasharray: "4,3" }),
        Plot.ruleY(rows.filter((d) => d.low != null), { x1: "low", x2: "high", y: "label", fy: "facet", stroke: "label", strokeWidth: 2 }),
        Plot.dot(rows, { x: "value", y: "label", fy: "facet", fill: "label", r: 5 }),
        Plot.tip(rows, Plot.pointer({ x: "value", y: "label", fy: "facet", fill: "var(--ground)",
          title: (d) => `${d.facet}\n${d.label}: ${percent(d.value)}${range(d)}` + (d.chance == null ? "" : `\nchance ${percent(d.chance)}`) })),
      ],
    })];
  }

  /** {facet, label, confidence, accuracy, low, high, n} */
  function reliability(rows) {
    const labels = unique(rows.map((d) => d.label));
    const facets = unique(rows.map((d) => d.facet));
    const across = Math.max(1, Math.min(facets.length, Math.floor(width() / 300)));
    const most = Math.max(...rows.map((d) => d.n));
    return [labels.length > 1 && swatches(labels), page.element("div", { class: "grid" }, facets.map((facet) => {
      const own = rows.filter((d) => d.facet === facet);
      return Plot.plot({
        ...common(`Calibration on ${facet}`), width: Math.min(420, width() / across - 12), height: Math.min(400, width() / across), title: undefined,
        marginTop: 34, marginLeft: 44, color: colour(labels),
        marginBottom: 40, x: { domain: [0, 1], label: "confidence", labelAnchor: "center", labelArrow: false, labelOffset: 34, tickFormat: (v) => `${Math.round(100 * v)}` },
        y: { domain: [0, 1], label: "accuracy", tickFormat: (v) => `${Math.round(100 * v)}`, grid: true },
        marks: [
          Plot.text([cut(facet, 48)], { frameAnchor: "top", dy: -24, fontWeight: 600 }),
          Plot.line([[0, 0], [1, 1]], { stroke: "var(--soft)", strokeDasharray: "4,3" }),
          Plot.ruleX(own.filter((d) => d.low != null), { x: "confidence", y1: "low", y2: "high", stroke: "label" }),
          Plot.line(own, { x: "confidence", y: "accuracy", stroke: "label", z: "label" }),
          Plot.dot(own, { x: "confidence", y: "accuracy", fill: "label", r: (d) => 3 + 5 * Math.sqrt(d.n / most) }),
          Plot.tip(own, Plot.pointer({ x: "confidence", y: "accuracy", fill: "var(--ground)",
            title: (d) => `${d.label}\nconfidence ${percent(d.confidence)}\naccuracy ${percent(d.accuracy)}${range(d)}\nn = ${d.n}` })),
        ],
      });
    }))];
  }

  /** {threshold, cosines, bins: [{label, cosine, value, low, high, n}], chance} */
  function agreement({ threshold, cosines, bins, chance }) {
    const labels = unique(bins.map((d) => d.label));
    const x = { domain: d3.extent([...cosines, threshold]), nice: true, label: "cosine of the two images", labelAnchor: "center", labelArrow: false, labelOffset: 34 };
    const at = Plot.ruleX([threshold], { stroke: "var(--text)", strokeDasharray: "5,3" });
    return [
      Plot.plot({
        ...common("Pairs by cosine"), height: 170, marginLeft: 50, x: { ...x, label: null }, y: { label: "pairs", grid: true },
        marks: [Plot.rectY(cosines, Plot.binX({ y: "count" }, { x: Plot.identity, fill: "var(--c7)", thresholds: 40, inset: 0.5 })), Plot.ruleY([0]), at],
      }),
      labels.length > 1 && swatches(labels),
      Plot.plot({
        ...common("Pairs right by cosine"), height: 270, marginLeft: 50, marginBottom: 40, x, color: colour(labels),
        y: { domain: [0, 1], label: "pairs right, percent", tickFormat: (v) => `${Math.round(100 * v)}`, grid: true },
        marks: [
          at,
          chance == null ? null : Plot.ruleY([chance], { stroke: "var(--soft)", strokeDasharray: "2,3" }),
          Plot.ruleX(bins.filter((d) => d.low != null), { x: "cosine", y1: "low", y2: "high", stroke: "label", dx: (d) => 0 }),
          Plot.line(bins, { x: "cosine", y: "value", stroke: "label", z: "label" }),
          Plot.dot(bins, { x: "cosine", y: "value", fill: "label", r: 5 }),
          Plot.tip(bins, Plot.pointer({ x: "cosine", y: "value", fill: "var(--ground)",
            title: (d) => `${d.label}\ncosine about ${d.cosine.toFixed(3)}, ${d.n} pairs\nright ${percent(d.value)}${range(d)}` })),
        ],
      }),
    ];
  }

  /** {facet, label, value, low, high}: B minus A */
  function differences(rows) {
    const facets = unique(rows.map((d) => d.facet));
    const labels = unique(rows.map((d) => d.label));
    const left = Math.min(width() * 0.38, 7.2 * Math.max(...facets.map((f) => f.length)) + 20);
    const most = Math.max(0.05, ...rows.flatMap((d) => [d.value, d.low ?? 0, d.high ?? 0].map(Math.abs)));
    return [labels.length > 1 && swatches(labels), Plot.plot({
      ...common("B minus A"), marginLeft: left, height: (22 * labels.length + 10) * facets.length + 50, color: colour(labels),
      x: { domain: [-most, most], nice: true, tickFormat: (v) => `${v > 0 ? "+" : ""}${Math.round(100 * v)}`, label: "← A better · percentage points · B better →", labelAnchor: "center", labelArrow: false, labelOffset: 34, grid: true }, marginBottom: 40,
      y: { domain: labels, axis: null },
      fy: { domain: facets, label: null, axis: "left", tickFormat: (v) => cut(v, Math.floor(left / 7)), padding: 0.15 },
      marks: [
        Plot.frame({ stroke: "var(--line)" }), Plot.ruleX([0], { stroke: "var(--text)" }),
        Plot.ruleY(rows.filter((d) => d.low != null), { x1: "low", x2: "high", y: "label", fy: "facet", stroke: "label", strokeWidth: 2 }),
        Plot.dot(rows, { x: "value", y: "label", fy: "facet", fill: "label", r: 5 }),
        Plot.tip(rows, Plot.pointer({ x: "value", y: "label", fy: "facet", fill: "var(--ground)", title: (d) => `${d.facet}\n${d.label}: ${percent(d.value)}${range(d)}` })),
      ],
    })];
  }

  const kinds = { dots, reliability, agreement, differences };

  /** Draw all charts that are seen, again where the page's width changes. */
  function draw(specs) {
    const places = [...document.querySelectorAll("[data-chart]")].filter((place) => specs[place.dataset.chart]);
    const fill = (place) => {
      const { kind, data, name } = specs[place.dataset.chart];
      place.replaceChildren(...kinds[kind](data, name).filter(Boolean));
      place.querySelectorAll("svg").forEach(page.picture);
      place.drawn = width();
    };
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting && target.drawn !== width()) fill(target);
    }, { rootMargin: "300px" });
    places.forEach((place) => seen.observe(place));
    let timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => places.forEach((place) => { if (place.drawn && place.drawn !== width()) fill(place); }), 200);
    });
  }

  return { draw, kinds };
})();
