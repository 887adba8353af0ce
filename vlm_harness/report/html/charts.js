// Charts of a report or comparison, made with Observable Plot. Colours follow the page's theme.
"use strict";

const charts = (() => {
  const COLOURS = 8;
  const ROW = 22; // pixels
  const width = () => Math.max(300, Math.min(document.getElementById("main").clientWidth - 32, 1240));
  const percent = (value) => `${Math.round(100 * value)}`;
  const unique = (values) => [...new Set(values)];
  const below = (label) => ({ label, labelAnchor: "center", labelArrow: false, labelOffset: 34 });

  // A label has the same colour in all charts of the page.
  const labelled = new Map();
  const colourOf = (label) => {
    if (!labelled.has(label)) labelled.set(label, `var(--c${labelled.size % COLOURS})`);
    return labelled.get(label);
  };
  const common = (name) => ({
    width: width(),
    ariaLabel: name,
    style: { fontSize: "13px", fontFamily: "inherit", color: "inherit" },
  });

  function swatches(labels) {
    return page.element(
      "ul",
      { class: "swatches" },
      labels.map((label) => {
        const item = page.element("li", {}, label);
        item.style.setProperty("--of", colourOf(label));
        return item;
      }),
    );
  }

  /**
   * Rows with a value and an interval, in one band per facet. Colours distinguish labels; if there are more labels
   * than colours, each row shows its label instead.
   */
  function bands(rows, name, x, behind) {
    const labels = unique(rows.map((d) => d.label));
    const facets = unique(rows.map((d) => d.facet));
    const named = labels.length > COLOURS;
    const narrow = width() < 640;
    const most = 0.4 * width();
    const left = Math.ceil(
      Math.min(most, Math.max(narrow ? 0 : page.widest(named ? labels : facets), 0) + 14),
    );
    const title = narrow || named; // above its band if there is no space beside it
    const fill = named ? "var(--c0)" : (d) => colourOf(d.label);
    return [
      labels.length > 1 && !named && swatches(labels),
      Plot.plot({
        ...common(name),
        marginLeft: left,
        marginRight: 20,
        marginTop: title ? 26 : 12,
        marginBottom: 42,
        height: (ROW * labels.length + (title ? 30 : 10)) * facets.length + 60,
        x,
        y: {
          domain: labels,
          axis: named && !narrow ? "left" : null,
          label: null,
          tickSize: 0,
          tickFormat: (label) => page.fit(label, left - 12),
        },
        fy: {
          domain: facets,
          label: null,
          axis: title ? null : "left",
          tickFormat: (facet) => page.fit(facet, left - 12),
          padding: title ? 0.35 : 0.15,
        },
        marks: [
          Plot.frame({ stroke: "var(--line)" }),
          title
            ? Plot.text(facets, {
                fy: (d) => d,
                text: (d) => page.fit(d, width() - left - 30),
                frameAnchor: "top-left",
                dy: -14,
                fontWeight: 600,
              })
            : null,
          ...behind,
          Plot.ruleY(
            rows.filter((d) => d.low != null),
            { x1: "low", x2: "high", y: "label", fy: "facet", stroke: fill, strokeWidth: 2 },
          ),
          Plot.dot(rows, { x: "value", y: "label", fy: "facet", fill, r: 5 }),
          Plot.tip(
            rows,
            Plot.pointer({
              x: "value",
              y: "label",
              fy: "facet",
              fill: "var(--ground)",
              title: (d) =>
                `${d.facet}\n${d.label}: ${d.text}${d.chance == null ? "" : `\nchance ${(100 * d.chance).toPrecision(3)}`}`,
            }),
          ),
        ],
      }),
    ];
  }

  /** {facet, label, value, low, high, chance, text} */
  function dots(rows, name) {
    const chances = new Map(rows.filter((d) => d.chance != null).map((d) => [`${d.facet}\n${d.chance}`, d]));
    return bands(rows, name, { domain: [0, 1], tickFormat: percent, grid: true, ...below("percent") }, [
      Plot.ruleX([...chances.values()], {
        x: "chance",
        fy: "facet",
        stroke: "var(--soft)",
        strokeDasharray: "4,3",
      }),
    ]);
  }

  /** {facet, label, value, low, high, text}: B minus A */
  function differences(rows) {
    const most = Math.max(0.05, ...rows.flatMap((d) => [d.value, d.low ?? 0, d.high ?? 0].map(Math.abs)));
    const x = {
      domain: [-most, most],
      nice: true,
      grid: true,
      tickFormat: (v) => `${v > 0 ? "+" : ""}${percent(v)}`,
      ...below("← A better · percentage points · B better →"),
    };
    return bands(rows, "B minus A", x, [Plot.ruleX([0], { stroke: "var(--text)" })]);
  }

  /** {facet, label, confidence, accuracy, low, high, n} */
  function reliability(rows) {
    const labels = unique(rows.map((d) => d.label));
    const facets = unique(rows.map((d) => d.facet));
    const side = Math.min(
      400,
      width() / Math.max(1, Math.min(facets.length, Math.floor(width() / 290))) - 12,
    );
    const most = Math.max(...rows.map((d) => d.n));
    const stroke = (d) => colourOf(d.label);
    return [
      labels.length > 1 && swatches(labels),
      page.element(
        "div",
        { class: "grid" },
        facets.map((facet) => {
          const own = rows.filter((d) => d.facet === facet);
          const plot = Plot.plot({
            ...common(`Calibration on ${facet}`),
            width: side,
            height: side,
            marginTop: 28,
            marginLeft: 44,
            marginBottom: 42,
            x: { domain: [0, 1], tickFormat: percent, ...below("confidence") },
            y: { domain: [0, 1], tickFormat: percent, label: "accuracy", grid: true },
            marks: [
              Plot.line(
                [
                  [0, 0],
                  [1, 1],
                ],
                { stroke: "var(--soft)", strokeDasharray: "4,3" },
              ),
              Plot.ruleX(
                own.filter((d) => d.low != null),
                { x: "confidence", y1: "low", y2: "high", stroke },
              ),
              Plot.line(own, { x: "confidence", y: "accuracy", stroke, z: "label" }),
              Plot.dot(own, {
                x: "confidence",
                y: "accuracy",
                fill: stroke,
                r: (d) => 3 + 5 * Math.sqrt(d.n / most),
              }),
              Plot.tip(
                own,
                Plot.pointer({
                  x: "confidence",
                  y: "accuracy",
                  fill: "var(--ground)",
                  title: (d) =>
                    `${d.label}\nconfidence ${percent(d.confidence)}\naccuracy ${percent(d.accuracy)}\nn = ${d.n}`,
                }),
              ),
            ],
          });
          return page.element(
            "div",
            {},
            page.element("p", { class: "facet" }, page.fit(facet, side - 20)),
            plot,
          );
        }),
      ),
    ];
  }

  /** {threshold, cosines, bins: [{label, cosine, value, low, high, n, text}], chance} */
  function agreement({ threshold, cosines, bins, chance }) {
    const labels = unique(bins.map((d) => d.label));
    const x = {
      domain: d3.extent([...cosines, threshold]),
      nice: true,
      ...below("pair cosine similarity"),
    };
    const at = Plot.ruleX([threshold], { stroke: "var(--text)", strokeDasharray: "5,3" });
    const stroke = (d) => colourOf(d.label);
    return [
      Plot.plot({
        ...common("Pairs by cosine"),
        height: 170,
        marginLeft: 50,
        x: { ...x, label: null },
        y: { label: "pairs", grid: true },
        marks: [
          Plot.rectY(
            cosines,
            Plot.binX({ y: "count" }, { x: Plot.identity, fill: "var(--c7)", thresholds: 40, inset: 0.5 }),
          ),
          Plot.ruleY([0]),
          at,
        ],
      }),
      labels.length > 1 && swatches(labels),
      Plot.plot({
        ...common("Pair accuracy by cosine"),
        height: 280,
        marginTop: 30,
        marginLeft: 50,
        marginBottom: 42,
        x,
        y: { domain: [0, 1], label: "pair accuracy, percent", tickFormat: percent, grid: true },
        marks: [
          at,
          chance == null ? null : Plot.ruleY([chance], { stroke: "var(--soft)", strokeDasharray: "2,3" }),
          Plot.ruleX(
            bins.filter((d) => d.low != null),
            { x: "cosine", y1: "low", y2: "high", stroke },
          ),
          Plot.line(bins, { x: "cosine", y: "value", stroke, z: "label" }),
          Plot.dot(bins, { x: "cosine", y: "value", fill: stroke, r: 5 }),
          Plot.tip(
            bins,
            Plot.pointer({
              x: "cosine",
              y: "value",
              fill: "var(--ground)",
              title: (d) => `${d.label}\ncosine about ${d.cosine.toFixed(3)}, ${d.n} pairs\naccuracy ${d.text}`,
            }),
          ),
        ],
      }),
    ];
  }

  const kinds = { dots, differences, reliability, agreement };

  /** Draw each chart when it becomes visible, and again when the width of the page changes. */
  function draw(specs) {
    for (const { data } of Object.values(specs)) for (const { label } of data.bins ?? data) colourOf(label);
    const places = [...document.querySelectorAll("[data-chart]")].filter(
      (place) => specs[place.dataset.chart],
    );
    const fill = (place) => {
      const { kind, data, name } = specs[place.dataset.chart];
      place.replaceChildren(...kinds[kind](data, name).filter(Boolean));
      place.querySelectorAll("svg").forEach(page.asImage);
      place.drawnWidth = width();
    };
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries)
          if (isIntersecting && target.drawnWidth !== width()) fill(target);
      },
      { rootMargin: "300px" },
    );
    places.forEach((place) => seen.observe(place));
    let timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(
        () =>
          places.forEach((place) => {
            if (place.drawnWidth && place.drawnWidth !== width()) fill(place);
          }),
        200,
      );
    });
  }

  return { draw };
})();
