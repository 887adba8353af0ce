// The leaderboard: one family of benchmarks at a time, as a sortable table and a chart. The URL determines what is
// shown.
"use strict";

const site = (() => {
  const { element } = page;
  const DASH = "–";
  const FIXED = 4; // columns before the tasks
  const KINDS = { "dual encoder": "dual encoder", mllm: "generative VLM", other: "other" };
  const COLOURS = { "dual encoder": "var(--c0)", mllm: "var(--c1)", other: "var(--c3)" };
  const NOTHING = { name: "", text: "No results yet.", tasks: [], rows: [] };
  const find = (id) => document.getElementById(id);

  let data, form, state, family, sorted, shown;
  const metricOf = (task) => state.metric ?? task.primary;
  const UNKNOWN = { unit: "number", direction: null };
  const declared = (metric) => (Object.hasOwn(data.metrics, metric) ? data.metrics[metric] : UNKNOWN);
  const short = (metric) => declared(metric).short ?? metric;
  const isShare = (metric) => declared(metric).unit === "share";
  const isPublished = (row) => row.source === "published";

  function options(select, values, value) {
    select.replaceChildren(...values.map(([key, text]) => element("option", { value: key }, text)));
    select.value = value;
  }

  const unverified = () =>
    element("abbr", { class: "unverified", title: data.unverified }, "unverified");

  // --- rows -------------------------------------------------------------------------------------

  const columns = () => family.tasks.filter((task) => !state.metric || task.metrics.includes(state.metric));
  const found = (row, task) => row.cells[task.name]?.metrics[metricOf(task)] ?? null;
  const chanceOf = (task, metric) => metric?.chance ?? task.chance[metricOf(task)]?.value;

  function matches(row) {
    if (state.kind && row.kind !== state.kind) return false;
    if (state.source && isPublished(row) !== (state.source === "published")) return false;
    if (state.protocol && row.protocol !== state.protocol) return false;
    const words = [row.model, row.encoder, row.checkpoint, row.protocol, row.decoding]
      .join("\n")
      .toLowerCase();
    return (!state.q || words.includes(state.q.toLowerCase())) && columns().some((task) => found(row, task));
  }

  /** The protocol and all settings that differ from their defaults. */
  function how(row) {
    const parts = Object.entries(data.settings)
      .filter(([name, { usual }]) => row[name] && !usual.includes(row[name]))
      .map(([name, { words }]) => `${words}${row[name]}`);
    return [
      row.protocol,
      ...parts,
      row.cited && "cited",
      row.recorded && "recorded answers",
      row.tables && `table ${row.tables.join(", ")}`,
    ]
      .filter(Boolean)
      .join(", ");
  }

  // --- the table --------------------------------------------------------------------------------

  const place = (value) => `${Math.max(0, Math.min(100, 100 * value))}%`;

  /** Value, interval and chance on a line from 0 to 100; the cell also shows the numbers. */
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
    const metric = found(row, task);
    if (!metric)
      return element(
        "td",
        { class: "number", "data-order": lowerIsBetter(task) ? 1e300 : -1e300 },
        element("span", { class: "none" }, DASH),
      );
    const label = `${row.model}, ${task.title}: ${metric.text}${metric.ends ? `, interval ${metric.ends}` : ""}; details`;
    return element(
      "td",
      { class: "number", "data-order": metric.value },
      element(
        "button",
        {
          type: "button",
          class: `score${best.get(task.name) === metric.text ? " best" : ""}`,
          "aria-label": label,
          on: { click: () => change({ cell: `${row.id}~${task.name}` }, "push", true) },
        },
        element("span", { class: "value" }, metric.text),
        " ",
        metric.ends && element("span", { class: "ci" }, metric.ends),
        isShare(metricOf(task)) && bar(metric, chanceOf(task, metric)),
      ),
    );
  }

  function heading(row) {
    const published = isPublished(row);
    return element(
      "th",
      { scope: "row" },
      element(
        "span",
        {
          class: published ? "source published" : "source",
          title: published ? "published, not rerun" : "run with vlm-harness",
        },
        element("span", { "aria-hidden": "true" }, published ? "◇ " : "◆ "),
        element("span", { class: "hidden" }, published ? "published, not rerun: " : "run: "),
      ),
      row.model,
      row.verified === false && [" ", unverified()],
      element("span", { class: "how" }, how(row)),
    );
  }

  const lowerIsBetter = (task) => declared(metricOf(task)).direction === "lower";
  const better = (task, a, b) => (lowerIsBetter(task) ? b.value < a.value : b.value > a.value) ? b : a;

  function table(rows) {
    const tasks = columns();
    // Compare values as printed, so that those that look equal are equal.
    const best = new Map(
      tasks
        .filter((task) => declared(metricOf(task)).direction)
        .map((task) => {
          const known = rows.map((row) => found(row, task)).filter(Boolean);
          return [task.name, known.length > 1 ? known.reduce((a, b) => better(task, a, b)).text : null];
        }),
    );
    const chances = tasks.map((task) => task.chance[metricOf(task)]);
    const made = element(
      "table",
      { class: "board" },
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ["model", "kind", "encoder"].map((text) => element("th", { scope: "col" }, text)),
          element("th", { scope: "col", class: "number" }, "size"),
          tasks.map((task) =>
            element(
              "th",
              { scope: "col", class: "number", title: task.description },
              task.title,
              element("span", { class: "how" }, short(metricOf(task))),
            ),
          ),
        ),
      ),
      element(
        "tbody",
        {},
        rows.map((row) =>
          element(
            "tr",
            {},
            heading(row),
            element("td", {}, KINDS[row.kind]),
            element("td", {}, row.encoder ?? DASH),
            element("td", { class: "number", "data-order": row.size?.value ?? -1 }, row.size?.text ?? DASH),
            tasks.map((task) => cell(row, task, best)),
          ),
        ),
      ),
      chances.some(Boolean) &&
        element(
          "tfoot",
          {},
          element(
            "tr",
            {},
            element("th", { scope: "row" }, "chance"),
            element("td"),
            element("td"),
            element("td"),
            chances.map((chance) => element("td", { class: "number" }, chance?.text ?? DASH)),
          ),
        ),
    );
    sorted?.destroy();
    find("scores").replaceChildren(made);
    sorted = new DataTable(made, {
      paging: false,
      info: false,
      searching: false,
      autoWidth: false,
      order: tasks.length ? [order(tasks)] : [],
      columnDefs: [
        {
          targets: tasks.map((_, n) => FIXED + n).filter((_, n) => lowerIsBetter(tasks[n])),
          orderSequence: ["asc", "desc"],
        },
        { targets: "number", orderSequence: ["desc", "asc"] },
        { targets: "_all", orderSequence: ["asc", "desc"] },
      ],
      language: { emptyTable: "No matching rows.", zeroRecords: "No matching rows." },
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    });
    sorted.on("order.dt", () => {
      const [[column, way] = []] = sorted.order();
      if (column === undefined) return;
      state.sort = column === FIXED && way === bestFirst(tasks[0]) ? "" : `${column} ${way}`;
      page.set({ ...page.settings(), sort: state.sort });
      last = key(); // the table is already sorted
    });
  }

  const bestFirst = (task) => (lowerIsBetter(task) ? "asc" : "desc");

  function order(tasks) {
    const [, column, way] = /^(\d+) (asc|desc)$/.exec(state.sort ?? "") ?? [];
    return Number(column) < FIXED + tasks.length ? [Number(column), way] : [FIXED, bestFirst(tasks[0])];
  }

  // --- the chart --------------------------------------------------------------------------------

  function chart(rows) {
    const tasks = columns();
    const task = tasks.find((each) => each.name === state.task) ?? tasks[0];
    options(
      find("chart-form").task,
      tasks.map((each) => [each.name, each.title]),
      task?.name,
    );
    const plotted =
      !task || declared(metricOf(task)).unit === "cosine"
        ? []
        : rows
            .filter((row) => found(row, task))
            .map((row) => {
              const metric = found(row, task);
              return {
                ...metric,
                id: row.id,
                label: `${row.model} · ${how(row)}`,
                kind: row.kind,
                published: isPublished(row),
                chance: chanceOf(task, metric),
              };
            })
            .sort((a, b) => (lowerIsBetter(task) ? a.value - b.value : b.value - a.value));
    const box = find("chart");
    if (!plotted.length) {
      box.replaceChildren(element("p", { class: "soft" }, "No data to plot."));
      return;
    }
    const width = Math.max(300, Math.min(find("main").clientWidth - 32, 1240));
    const labels = new Map(plotted.map((d) => [d.id, d.label]));
    const left = Math.ceil(Math.min(0.45 * width, page.widest([...labels.values()]) + 14));
    const chance = plotted.find((d) => d.chance != null)?.chance;
    const stroke = (d) => COLOURS[d.kind];
    const svg = Plot.plot({
      width,
      height: 21 * plotted.length + 62,
      marginLeft: left,
      marginBottom: 42,
      marginRight: 16,
      ariaLabel: `${task.title}, ${short(metricOf(task))}`,
      style: { fontSize: "13px", fontFamily: "inherit", color: "inherit" },
      x: {
        ...(isShare(metricOf(task))
          ? {
              // Sums of shares exceed 1.
              domain: [0, Math.max(1, ...plotted.map((d) => d.ci_high ?? d.value))],
              tickFormat: (v) => `${Math.round(100 * v)}`,
            }
          : { zero: true, nice: true }),
        grid: true,
        label: short(metricOf(task)) + (isShare(metricOf(task)) ? ", percent" : ""),
        labelAnchor: "center",
        labelArrow: false,
        labelOffset: 34,
      },
      y: {
        domain: plotted.map((d) => d.id),
        label: null,
        tickFormat: (id) => page.fit(labels.get(id), left - 12),
        tickSize: 0,
      },
      marks: [
        chance == null ? null : Plot.ruleX([chance], { stroke: "var(--text)", strokeDasharray: "4,3" }),
        Plot.ruleY(
          plotted.filter((d) => d.ci_low != null),
          { x1: "ci_low", x2: "ci_high", y: "id", stroke, strokeWidth: 2 },
        ),
        Plot.dot(plotted, {
          x: "value",
          y: "id",
          r: 5,
          stroke,
          strokeWidth: 2,
          fill: (d) => (d.published ? "var(--ground)" : COLOURS[d.kind]),
        }),
        Plot.tip(
          plotted,
          Plot.pointerY({
            x: "value",
            y: "id",
            fill: "var(--ground)",
            title: (d) =>
              `${d.label}${d.published ? " (published)" : ""}: ${d.text}${d.ends ? ` (${d.ends})` : ""}`,
          }),
        ),
      ],
    });
    const kinds = [...new Set(plotted.map((d) => d.kind))].map((kind) => {
      const item = element("li", {}, KINDS[kind]);
      item.style.setProperty("--of", COLOURS[kind]);
      return item;
    });
    box.replaceChildren(element("ul", { class: "swatches" }, kinds), page.asImage(svg));
  }

  // --- details of a score -----------------------------------------------------------------------

  function facts(row, task, own, run) {
    const shown = {
      [task.members ? "group" : "task"]: `${task.name}, version ${own.version ?? task.version}`,
      tasks: task.members?.join(", "),
      protocol: row.protocol,
      command: row.command,
      decoding: row.decoding,
      order: row.order,
      images: row.image_mode,
      labels: row.labels,
      encoder: row.encoder,
      parameters: row.parameters?.toLocaleString("en"),
      checkpoint: row.checkpoint,
      answers: own.n_samples?.toLocaleString("en"),
      unparsed: own.n_unparsed,
      tied: own.n_tied,
      run: run?.id,
      finished: run?.finished,
      "vlm-harness": run && [run.version, run.commit].filter(Boolean).join(" "),
      seed: run?.seed,
      identity: run?.identity,
      published: own.tables && `${row.cited ? "cited in " : ""}table ${own.tables.join(", ")}; not rerun`,
      reference: row.reference,
      note: own.note,
    };
    return element(
      "dl",
      {},
      Object.entries(shown)
        .filter(([, value]) => value != null && value !== "" && value !== "none")
        .map(([key, value]) => element("div", {}, element("dt", {}, key), element("dd", {}, String(value)))),
    );
  }

  function scores(task, own) {
    const rows = Object.entries(own.metrics).map(([name, metric]) => [
      short(name) + (name === task.primary ? (task.members ? " (headline)" : " (primary)") : ""),
      metric.text,
      metric.ends || DASH,
      metric.n ?? DASH,
      metric.chance_text || DASH,
    ]);
    return element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "All scores" },
      page.table(["metric", "value", "95% interval", "n", "chance"], rows, 1),
    );
  }

  function commandBox(box, run, command, verified) {
    const copy = element(
      "button",
      {
        type: "button",
        on: {
          click: async () => {
            try {
              await navigator.clipboard.writeText(command);
              copy.textContent = "Copied";
            } catch {
              getSelection().selectAllChildren(box.querySelector("pre"));
            }
          },
        },
      },
      "Copy",
    );
    return element(
      "div",
      {},
      element(
        "p",
        { class: "label" },
        run ? "exact command" : "command to rerun it with vlm-harness",
        verified || " ",
        verified || unverified(),
      ),
      element("pre", { tabindex: "0" }, command),
      copy,
    );
  }

  function details() {
    const box = find("cell");
    const [id, name] = (state.cell ?? "").split("~");
    const row = family.rows.find((each) => each.id === id);
    const task = family.tasks.find((each) => each.name === name);
    const own = task && row?.cells[task.name];
    if (!own) {
      if (box.open) box.close();
      return;
    }
    const run = own.run == null ? null : data.runs[own.run];
    const command = run?.command ?? own.repeat;
    box.replaceChildren(
      element(
        "header",
        {},
        element("h2", { id: "cell-title" }, `${row.model} on ${task.title}`),
        element("button", { type: "button", on: { click: () => box.close() } }, "Close"),
      ),
      element(
        "div",
        { class: "body" },
        scores(task, own),
        facts(row, task, own, run),
        command && commandBox(box, run, command, (run ? row : own).verified),
        run?.report &&
          element(
            "p",
            {},
            element(
              "a",
              { href: run.report, rel: "noopener noreferrer" },
              "Report of the run, with its samples",
            ),
          ),
      ),
    );
    if (!box.open) box.showModal();
  }

  // --- state, which is kept in the URL ----------------------------------------------------------

  /** The settings that are valid for the family; the rest of the URL is ignored. */
  function known(given) {
    const valid = { ...given };
    const own = data.families.find((each) => each.name === given.tab) ?? data.families[0] ?? NOTHING;
    if (!metrics(own).includes(given.metric)) delete valid.metric;
    if (!Object.hasOwn(KINDS, given.kind ?? "")) delete valid.kind;
    if (!["run", "published"].includes(given.source)) delete valid.source;
    if (!protocols(own).includes(given.protocol)) delete valid.protocol;
    return [valid, own];
  }

  const metrics = (own) =>
    [...new Set(own.tasks.flatMap((task) => task.metrics))].filter((name) =>
      own.rows.some((row) => Object.values(row.cells).some((each) => Object.hasOwn(each.metrics, name))),
    );
  const protocols = (own) => [...new Set(own.rows.map((row) => row.protocol))].sort();

  let last = "",
    settling;
  const change = (...how) => settling.change(...how);

  function key() {
    const { cell: _, ...rest } = state;
    return JSON.stringify({ ...rest, tab: family.name });
  }

  function apply() {
    [state, family] = known(page.settings());
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const chosen = tab.dataset.family === family.name;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) find("panel").setAttribute("aria-labelledby", tab.id);
    }
    settling.show(state.q);
    if (key() !== last) {
      last = key();
      find("about-family").textContent = family.text;
      options(
        form.metric,
        [["", "primary metric"], ...metrics(family).map((name) => [name, short(name)])],
        state.metric ?? "",
      );
      options(
        form.protocol,
        [["", "all"], ...protocols(family).map((name) => [name, name])],
        state.protocol ?? "",
      );
      form.kind.value = state.kind ?? "";
      form.source.value = state.source ?? "";
      shown = family.rows.filter(matches);
      find("count").textContent = `${shown.length} of ${family.rows.length} rows`;
      table(shown);
      chart(shown);
    }
    details();
  }

  function tabs() {
    const all = [...document.querySelectorAll("[role=tab]")];
    const choose = (tab) => {
      change(
        {
          tab: tab === all[0] ? "" : tab.dataset.family,
          metric: "",
          protocol: "",
          task: "",
          sort: "",
          cell: "",
        },
        "push",
      );
      tab.focus();
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    };
    all.forEach((tab, n) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: all.length - 1 }[event.key];
        if (to !== undefined) {
          event.preventDefault();
          choose(all[(to + all.length) % all.length]);
        }
      });
    });
  }

  function start(loaded) {
    data = loaded;
    form = find("filters");
    settling = page.settling(form.q, apply, {});
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", ({ target: { name, value } }) => {
      if (name !== "q") change({ [name]: value, ...(name === "metric" && { sort: "" }) }, "push");
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      settling.clear();
      change({ q: "", metric: "", kind: "", source: "", protocol: "", sort: "" }, "push");
    });
    find("chart-form").addEventListener("change", ({ target }) => change({ task: target.value }));
    tabs();
    page.closable(find("cell"), () => page.settings().cell && page.leave(() => change({ cell: "" })));
    page.links(apply, "panel");
    let width = innerWidth,
      resized;
    addEventListener("resize", () => {
      clearTimeout(resized);
      resized = setTimeout(() => {
        if (innerWidth !== width) {
          width = innerWidth;
          chart(shown);
        }
      }, 200);
    });
    apply();
  }

  return { start };
})();

page.load().then((data) => {
  site.start(data);
  document.documentElement.dataset.ready = "yes";
});
