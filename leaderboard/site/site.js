// The leaderboard: one family of benchmarks at a time, as a table that sorts and a chart. All of what is shown
// follows from the address.
"use strict";

const site = (() => {
  const { element } = page;
  const DASH = "–";
  const KINDS = { "dual encoder": "dual encoder", mllm: "MLLM", other: "other" };
  const COLOURS = { "dual encoder": "var(--c0)", mllm: "var(--c1)", other: "var(--c3)" };
  const percent = (value) => (100 * value).toFixed(1);
  const isCosine = (metric) => metric.includes("cosine");
  const shown = (value, metric) => (isCosine(metric) ? value.toFixed(3) : percent(value));
  const find = (id) => document.getElementById(id);

  let data, form, state;
  const NOTHING = { name: "", text: "Nothing here yet.", tasks: [], rows: [] };
  const family = () => data.families.find((each) => each.name === state.tab) ?? data.families[0] ?? NOTHING;
  const metricOf = (task) => (state.metric ? state.metric : task.primary);
  const short = (metric) => data.short[metric] ?? metric;

  function options(select, values, value) {
    select.replaceChildren(...values.map(([key, text]) => element("option", { value: key }, text)));
    select.value = values.some(([key]) => key === value) ? value : "";
  }

  // --- rows -------------------------------------------------------------------------------------

  const columns = () => family().tasks.filter((task) => !state.metric || task.metrics.includes(state.metric));

  function fits(row) {
    if (state.kind && row.kind !== state.kind) return false;
    if (state.source && (row.source === "published") !== (state.source === "published")) return false;
    if (state.protocol && row.protocol !== state.protocol) return false;
    const words = [row.model, row.encoder, row.checkpoint, row.protocol, row.decoding].join("\n").toLowerCase();
    return !state.q || words.includes(state.q.toLowerCase());
  }

  const found = (row, task) => row.cells[task.name]?.metrics[metricOf(task)] ?? null;

  // --- the table --------------------------------------------------------------------------------

  const place = (value) => `${Math.max(0, Math.min(100, 100 * value))}%`;

  /** Value, interval and chance on a line from 0 to 100; the numbers beside it say the same. */
  function bar(metric, chance) {
    const made = element("span", { class: "range", "aria-hidden": "true" });
    const part = (name, left, width) => {
      const one = element("span", { class: name });
      one.style.left = place(left);
      if (width !== undefined) one.style.width = place(width);
      made.append(one);
    };
    if (metric.ci_low != null) part("interval", metric.ci_low, metric.ci_high - metric.ci_low);
    if (chance != null) part("chance", chance);
    part("value", metric.value);
    return made;
  }

  function cell(row, task, best) {
    const name = metricOf(task), metric = found(row, task);
    if (!metric) return element("td", { class: "number", "data-order": -1 }, element("span", { class: "none" }, DASH));
    const interval = metric.ci_low == null || isCosine(name) ? "" : `${Math.round(100 * metric.ci_low)}–${Math.round(100 * metric.ci_high)}`;
    const top = best.get(task.name) === shown(metric.value, name);
    return element("td", { class: "number", "data-order": metric.value }, element("button", {
      type: "button", class: `score${top ? " best" : ""}`, on: { click: () => change({ cell: `${row.id}~${task.name}` }, true) },
      "aria-label": `${row.model}, ${task.title}: ${shown(metric.value, name)}${interval ? `, interval ${interval}` : ""}; details`,
    }, element("span", { class: "value" }, shown(metric.value, name)), " ", interval && element("span", { class: "ci" }, interval),
    isCosine(name) ? null : bar(metric, metric.chance ?? task.chance[name])));
  }

  function heading(row) {
    const published = row.source === "published";
    const asked = [row.protocol, row.decoding !== "greedy" && row.decoding !== "none" ? row.decoding : "", row.command === "default" || row.command === "none" ? "" : row.command,
      row.order && row.order !== "fixed" ? `order ${row.order}` : "", row.image_mode && row.image_mode !== "normal" ? `images ${row.image_mode}` : "",
      row.labels === "original" ? "original labels" : "", row.cited ? "cited" : ""].filter(Boolean).join(", ");
    return element("th", { scope: "row" }, element("span", { class: published ? "source published" : "source", title: published ? "published, not rerun" : "run with vlm-harness" },
      element("span", { "aria-hidden": "true" }, published ? "◇ " : "◆ "), element("span", { class: "hidden" }, published ? "published, not rerun: " : "run: ")),
    row.model, element("span", { class: "how" }, asked));
  }

  const size = (n) => (n == null ? DASH : n >= 1e9 ? `${(n / 1e9).toFixed(1)} B` : `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} M`);

  function table(rows) {
    const tasks = columns();
    const best = new Map(tasks.map((task) => {
      const values = rows.map((row) => found(row, task)?.value).filter((value) => value != null);
      return [task.name, values.length > 1 && data.ranked.includes(metricOf(task)) ? shown(Math.max(...values), metricOf(task)) : null];
    }));
    const chances = tasks.map((task) => task.chance[metricOf(task)]);
    const made = element("table", { class: "board" },
      element("thead", {}, element("tr", {},
        ["model", "kind", "encoder"].map((text) => element("th", { scope: "col" }, text)), element("th", { scope: "col", class: "number" }, "size"),
        tasks.map((task) => element("th", { scope: "col", class: "number", title: task.description }, task.title, element("span", { class: "how" }, short(metricOf(task))))))),
      element("tbody", {}, rows.map((row) => element("tr", {}, heading(row),
        element("td", {}, KINDS[row.kind]), element("td", {}, row.encoder ?? DASH), element("td", { class: "number", "data-order": row.parameters ?? -1 }, size(row.parameters)),
        tasks.map((task) => cell(row, task, best))))),
      element("tfoot", {}, chances.some((chance) => chance != null) && element("tr", {}, element("th", { scope: "row" }, "chance"), element("td"), element("td"), element("td"),
        chances.map((chance) => element("td", { class: "number" }, chance == null ? DASH : percent(chance))))));
    find("scores").replaceChildren(made);
    const [at, way] = (state.sort ?? "").split(" ");
    const first = /^\d+$/.test(at) && Number(at) < 4 + tasks.length ? [[Number(at), way === "asc" ? "asc" : "desc"]] : tasks.length ? [[4, "desc"]] : [];
    const sorted = new DataTable(made, { paging: false, info: false, searching: false, autoWidth: false, order: first,
      columnDefs: [{ targets: "number", orderSequence: ["desc", "asc"] }], language: { emptyTable: "Nothing fits.", zeroRecords: "Nothing fits." },
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null } });
    sorted.on("order.dt", () => {
      const [[column, order] = []] = sorted.order();
      if (column === undefined) return;
      state.sort = column === 4 && order === "desc" ? "" : `${column} ${order}`;
      page.set(state);
    });
  }

  // --- the chart --------------------------------------------------------------------------------

  function chart(rows) {
    const tasks = columns();
    const select = find("drawn").task;
    options(select, tasks.map((task) => [task.name, task.title]), state.task ?? tasks[0]?.name);
    if (!select.value && tasks.length) select.value = tasks[0].name;
    const task = tasks.find((each) => each.name === select.value);
    const drawn = !task ? [] : rows.filter((row) => found(row, task)).map((row) => {
      const metric = found(row, task);
      return { label: `${row.model} · ${row.protocol}${row.decoding === "greedy" || row.decoding === "none" ? "" : ` ${row.decoding}`}`, id: row.id, kind: row.kind, published: row.source === "published",
        value: metric.value, low: metric.ci_low, high: metric.ci_high, chance: metric.chance ?? task.chance[metricOf(task)] };
    }).sort((a, b) => b.value - a.value);
    const box = find("chart");
    if (!drawn.length || isCosine(metricOf(task))) { box.replaceChildren(element("p", { class: "soft" }, "Nothing to draw.")); return; }
    const width = Math.max(320, Math.min(find("main").clientWidth - 40, 1240));
    const names = new Map(drawn.map((d) => [d.id, d.label]));
    const left = Math.min(0.45 * width, 7 * Math.max(...drawn.map((d) => d.label.length)) + 16);
    const cut = (text) => (text.length > left / 6.8 ? `${text.slice(0, Math.floor(left / 6.8) - 1)}…` : text);
    const chance = drawn.find((d) => d.chance != null)?.chance;
    const title = (d) => `${d.label}${d.published ? " (published)" : ""}: ${percent(d.value)}${d.low == null ? "" : `, ${percent(d.low)} to ${percent(d.high)}`}`;
    const svg = Plot.plot({
      width, height: 21 * drawn.length + 60, marginLeft: left, marginBottom: 40, marginRight: 16, ariaLabel: `${task.title}, ${short(metricOf(task))}`,
      style: { fontSize: "13px", fontFamily: "inherit", color: "inherit" },
      x: { domain: [0, 1], tickFormat: (v) => `${Math.round(100 * v)}`, grid: true, label: `${short(metricOf(task))}, percent`, labelAnchor: "center", labelArrow: false, labelOffset: 34 },
      y: { domain: drawn.map((d) => d.id), label: null, tickFormat: (id) => cut(names.get(id)), tickSize: 0 },
      marks: [
        chance == null ? null : Plot.ruleX([chance], { stroke: "var(--text)", strokeDasharray: "4,3" }),
        Plot.ruleY(drawn.filter((d) => d.low != null), { x1: "low", x2: "high", y: "id", stroke: (d) => COLOURS[d.kind], strokeWidth: 2 }),
        Plot.dot(drawn, { x: "value", y: "id", r: 5, stroke: (d) => COLOURS[d.kind], strokeWidth: 2, fill: (d) => (d.published ? "var(--ground)" : COLOURS[d.kind]) }),
        Plot.tip(drawn, Plot.pointerY({ x: "value", y: "id", title, fill: "var(--ground)" })),
      ],
    });
    const kinds = [...new Set(drawn.map((d) => d.kind))].map((kind) => {
      const item = element("li", {}, KINDS[kind]);
      item.style.setProperty("--of", COLOURS[kind]);
      return item;
    });
    box.replaceChildren(element("ul", { class: "swatches" }, kinds), page.picture(svg));
  }

  // --- what is behind a score -------------------------------------------------------------------

  function details() {
    const box = find("cell");
    const [id, name] = (state.cell ?? "").split("~");
    const row = family().rows.find((each) => each.id === id);
    const task = family().tasks.find((each) => each.name === name);
    const own = task && row?.cells[task.name];
    if (!own) { if (box.open) box.close(); return; }
    const run = own.run == null ? null : data.runs[own.run];
    const facts = Object.entries({
      task: `${task.name}, version ${own.version ?? task.version}`, protocol: row.protocol, command: row.command, decoding: row.decoding, order: row.order,
      labels: row.labels, encoder: row.encoder, parameters: row.parameters?.toLocaleString("en"), checkpoint: row.checkpoint, samples: own.n_samples?.toLocaleString("en"),
      unparsed: own.n_unparsed, tied: own.n_tied, run: run?.id, finished: run?.finished, "vlm-harness": run && [run.version, run.commit].filter(Boolean).join(" "), seed: run?.seed, identity: run?.identity,
      published: own.tables && `${row.cited ? "cited in " : ""}table ${own.tables.join(", ")}; not rerun`, reference: row.reference, note: own.note,
    }).filter(([, value]) => value != null && value !== "" && value !== "none");
    const command = run?.command ?? own.repeat;
    const copy = element("button", { type: "button", on: { click: async () => {
      try { await navigator.clipboard.writeText(command); copy.textContent = "Copied"; } catch { getSelection().selectAllChildren(box.querySelector("pre")); }
    } } }, "Copy");
    box.replaceChildren(
      element("header", {}, element("h2", { id: "cell-title" }, `${row.model} on ${task.title}`), element("button", { type: "button", on: { click: () => box.close() } }, "Close")),
      element("div", { class: "body" },
        element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All scores" }, element("table", {}, element("thead", {}, element("tr", {}, ["score", "value", "95% interval", "n", "chance"].map((text, n) => element("th", { scope: "col", class: n ? "number" : null }, text)))),
          element("tbody", {}, Object.entries(own.metrics).map(([metric, m]) => element("tr", {}, element("th", { scope: "row" }, short(metric) + (metric === task.primary ? " (to quote)" : "")),
            element("td", { class: "number" }, shown(m.value, metric)), element("td", { class: "number" }, m.ci_low == null ? DASH : `${shown(m.ci_low, metric)} to ${shown(m.ci_high, metric)}`),
            element("td", { class: "number" }, m.n ?? DASH), element("td", { class: "number" }, m.chance == null ? DASH : percent(m.chance))))))),
        element("dl", {}, facts.map(([key, value]) => element("div", {}, element("dt", {}, key), element("dd", {}, String(value))))),
        command && element("div", {}, element("p", { class: "label" }, run ? "the exact command" : "a command that runs the same here"), element("pre", { tabindex: "0" }, command), copy),
        run?.report && element("p", {}, element("a", { href: run.report, rel: "noopener noreferrer" }, "Report of the run, with its samples"))));
    if (!box.open) box.showModal();
  }

  // --- state ------------------------------------------------------------------------------------

  function change(some, remember = false) {
    state = { ...state, ...some };
    page.set(state, remember);
    apply();
  }

  let last = "";
  function apply() {
    const own = family();
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const chosen = tab.dataset.family === own.name;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) find("panel").setAttribute("aria-labelledby", tab.id);
    }
    find("about-family").textContent = own.text;
    const metrics = [...new Set(own.tasks.flatMap((task) => task.metrics))].filter((name) => own.rows.some((row) => Object.values(row.cells).some((each) => each.metrics[name])));
    options(form.metric, [["", "the one to quote"], ...metrics.map((name) => [name, short(name)])], state.metric ?? "");
    options(form.protocol, [["", "all"], ...[...new Set(own.rows.map((row) => row.protocol))].sort().map((name) => [name, name])], state.protocol ?? "");
    form.kind.value = state.kind ?? "";
    form.source.value = state.source ?? "";
    if (document.activeElement !== form.q) form.q.value = state.q ?? "";
    const { cell: _, sort: __, ...rest } = state;
    const key = JSON.stringify(rest);
    if (key !== last) {
      last = key;
      const rows = own.rows.filter((row) => fits(row) && columns().some((task) => found(row, task)));
      find("count").textContent = `${rows.length} of ${own.rows.length} rows`;
      table(rows);
      chart(rows);
    }
    details();
  }

  function start(loaded) {
    data = loaded;
    form = find("filters");
    state = page.settings();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", ({ target }) => target.name !== "q" && change({ [target.name]: target.value, ...(target.name === "metric" && { sort: "" }) }));
    let timer;
    form.q.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => change({ q: form.q.value }), 150); });
    form.addEventListener("reset", () => setTimeout(() => change({ metric: "", kind: "", source: "", protocol: "", q: "", sort: "" })));
    find("drawn").addEventListener("change", ({ target }) => change({ task: target.value }));
    const tabs = [...document.querySelectorAll("[role=tab]")];
    const choose = (tab) => { change({ tab: tab === tabs[0] ? "" : tab.dataset.family, metric: "", protocol: "", task: "", sort: "", cell: "" }, true); tab.focus(); tab.scrollIntoView({ block: "nearest", inline: "nearest" }); };
    tabs.forEach((tab, n) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to !== undefined) { event.preventDefault(); choose(tabs[(to + tabs.length) % tabs.length]); }
      });
    });
    find("cell").addEventListener("close", () => state.cell && change({ cell: "" }));
    find("cell").addEventListener("click", (event) => event.target === find("cell") && find("cell").close());
    for (const event of ["popstate", "hashchange"]) addEventListener(event, () => { state = page.settings(); apply(); });
    let resized;
    addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { last = ""; apply(); }, 200); });
    apply();
  }

  return { start };
})();

page.load().then((data) => {
  site.start(data);
  document.documentElement.dataset.ready = "yes";
});
