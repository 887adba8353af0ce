// The sample browser: filters, pages of groups, a dialog with one sample, and a URL for each view.
"use strict";

const gallery = (() => {
  const { element } = page;
  const PAGE = 24; // groups
  const MAX_ANSWER = 300; // characters of an answer on a card
  const MARKS = {
    r: ["✓", "correct"],
    w: ["✗", "incorrect"],
    t: ["=", "tied"],
    u: ["?", "unparsed"],
    e: ["!", "failed"],
  };

  // Filters by the verdicts of one answerer on the samples of a group, in one option order.
  const OUTCOMES = new Map([
    ["wrong", ["in the group: not all correct", (v) => v.some((x) => x !== "r")]],
    ["none", ["in the group: none correct", (v) => v.every((x) => x !== "r")]],
    ["part", ["in the group: some correct", (v) => v.includes("r") && v.some((x) => x !== "r")]],
    ["right", ["in the group: all correct", (v) => v.every((x) => x === "r")]],
    ["unparsed", ["in the group: some unparsed", (v) => v.includes("u")]],
    ["failed", ["in the group: some failed", (v) => v.includes("e")]],
    ["tied", ["in the group: some tied", (v) => v.includes("t")]],
  ]);
  // Filters by the lines of A and B on the samples of a group, in one option order.
  const gained = (a, b) => a.v !== "r" && b.v === "r";
  const allCorrect = (lines) => lines.every((line) => line.v === "r");
  const FLIPS = new Map([
    ["gained", ["sample gained (only B correct)", (a, b) => a.some((line, n) => gained(line, b[n]))]],
    ["lost", ["sample lost (only A correct)", (a, b) => a.some((line, n) => gained(b[n], line))]],
    ["all-gained", ["complete group gained", (a, b) => allCorrect(b) && !allCorrect(a)]],
    ["all-lost", ["complete group lost", (a, b) => allCorrect(a) && !allCorrect(b)]],
  ]);

  let data, images, chunk, comparison, form, state, task, found;

  // --- images, at the end of the file -----------------------------------------------------------

  function source(number) {
    const parts = document.getElementsByClassName("images");
    const at = Math.floor(number / chunk);
    const part = parts[at];
    // While the page loads, its last element may be incomplete.
    if (!part || (at === parts.length - 1 && document.readyState === "loading")) return null;
    part.lines ??= part.textContent.split("\n");
    return `data:image/webp;base64,${part.lines[number % chunk]}`;
  }

  function image(index) {
    const { path, number, note } = images[index];
    if (number === undefined) return element("p", {}, note, element("br"), path);
    const made = element("img", { alt: path, title: path, decoding: "async" });
    const show = () => {
      const url = source(number);
      if (url) made.src = url;
      return url;
    };
    // Images come last, so the page may still be loading.
    if (!show()) document.addEventListener("DOMContentLoaded", show, { once: true });
    return made;
  }

  const imageRow = (numbers) =>
    element(
      "div",
      { class: "image-row" },
      numbers.length ? numbers.map(image) : element("p", {}, "no image was shown"),
    );

  // --- prompts and answers ----------------------------------------------------------------------

  const mark = (verdict) =>
    element(
      "span",
      { class: `mark ${verdict}` },
      element("span", { "aria-hidden": "true" }, MARKS[verdict][0]),
      element("span", { class: "hidden" }, MARKS[verdict][1]),
    );

  /** An option as it was shown; its letter may depend on the option order. */
  const option = (sample, line, n) =>
    line.w === undefined ? sample.options[n] : task.candidates[line.w][line.o ? line.o.indexOf(n) : n];

  function answerText(sample, line) {
    if (line.v === "e") return `failed: ${line.e ?? ""}`.slice(0, MAX_ANSWER);
    const chosen = line.p == null ? null : option(sample, line, line.p);
    if (line.t === undefined) return chosen ?? "tied";
    const text = (line.t || "(no text)").slice(0, MAX_ANSWER);
    // For a letter, add the option that it stands for.
    return chosen === null || text.includes(sample.options[line.p]) || text.includes(chosen)
      ? text
      : `${text} → ${chosen}`;
  }

  const other = (sample, line) => line.m && (line.m.length ? "other image shown" : "no image shown");

  /** The prompt of a line, else its captions, else the options. */
  function promptOf(sample, line) {
    if (line.q !== undefined) return task.prompts[line.q];
    return line.c === undefined ? sample.options.join(" / ") : task.candidates[line.c].join("\n");
  }

  /** The probability of each option among those shown; null without log-probabilities. */
  function probabilities(line) {
    if (!line.l || line.l.some((x) => x == null)) return null;
    const top = Math.max(...line.l),
      weights = line.l.map((x) => Math.exp(x - top));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((x) => x / sum);
  }

  // --- filters ----------------------------------------------------------------------------------

  /** Lines of a group by answerer and order, since a group may be correct in one order only. */
  function byOrder(group, wanted = () => true) {
    const lines = new Map();
    for (const n of group.members) {
      for (const line of task.samples[n].lines) {
        if (!wanted(line)) continue;
        const key = `${line.a} ${line.i ?? 0}`;
        if (lines.has(key)) lines.get(key).push(line);
        else lines.set(key, [line]);
      }
    }
    return lines;
  }

  const orders = (lines) => Object.groupBy([...lines], ([key]) => key.split(" ")[1]);

  /** The first option order in which a group matches the filter; undefined if there is none. */
  function matchingOrder(group) {
    if (!state.show) return "0";
    const who = state.who === undefined ? undefined : Number(state.who);
    const flip = FLIPS.get(state.show);
    const differ = state.show === "differ";
    const wanted = (line) => differ || flip || who === undefined || line.a === who;
    const found = Object.entries(orders(byOrder(group, wanted))).find(([, sides]) => {
      if (flip) {
        const [a, b] = ["0", "1"].map((side) => sides.find(([key]) => key.startsWith(`${side} `))?.[1]);
        return a && b && a.length === b.length && flip[1](a, b);
      }
      if (differ) {
        const [[, first], ...rest] = sides;
        return rest.some(([, lines]) =>
          lines.some((line, n) => line.v !== first[n]?.v || line.p !== first[n]?.p),
        );
      }
      return sides.some(([, lines]) => OUTCOMES.get(state.show)[1](lines.map((line) => line.v)));
    });
    return found?.[0];
  }

  function matches(group) {
    const members = group.members.map((n) => task.samples[n]);
    if (state.category && !members.some((sample) => sample.category === state.category)) return false;
    if (state.q && !words(group).includes(state.q.toLowerCase())) return false;
    return matchingOrder(group) !== undefined;
  }

  function words(group) {
    return (group.words ??= group.members
      .map((n) => {
        const sample = task.samples[n];
        const parts = [
          sample.id,
          sample.pair,
          sample.set,
          ...sample.options,
          ...sample.images.map((i) => images[i].path),
        ];
        for (const line of sample.lines) parts.push(line.t, line.e, promptOf(sample, line));
        return parts.filter(Boolean).join("\n");
      })
      .join("\n")
      .toLowerCase());
  }

  // --- cards ------------------------------------------------------------------------------------

  /** A sample with its answers in one option order, the one that matched the filter. */
  function member(number, order) {
    const sample = task.samples[number];
    const who = state.who === undefined ? undefined : Number(state.who);
    const own = sample.lines.filter((line) => who === undefined || line.a === who);
    const several = new Set(own.filter((line) => (line.i ?? 0) === order).map((line) => line.a));
    // An answerer with the first order only, such as a dual encoder, is shown in that order.
    const shown = own.filter((line) => (line.i ?? 0) === order || (!line.i && !several.has(line.a)));
    const first = shown.find((line) => line.q !== undefined) ?? shown[0] ?? sample.lines[0];
    const wordings = new Set(shown.map((line) => line.q).filter((q) => q !== undefined)).size;
    const seen =
      shown.length && shown.every((line) => line.m?.join() === shown[0].m?.join())
        ? (shown[0].m ?? sample.images)
        : sample.images;
    return element(
      "div",
      { class: "member" },
      element(
        "button",
        {
          type: "button",
          class: "open",
          "aria-label": `Open sample ${sample.id}`,
          on: { click: () => open(sample.id) },
        },
        imageRow(seen),
      ),
      element("p", { class: "prompt", dir: "auto" }, promptOf(sample, first)),
      wordings > 1 && element("p", { class: "soft small" }, "prompts differ; open the sample to see all"),
      element(
        "p",
        { class: "target", dir: "auto" },
        `Correct answer: ${option(sample, first, first.g ?? sample.target)}`,
      ),
      element(
        "ul",
        { class: "answers" },
        shown.map((line) =>
          element(
            "li",
            {},
            mark(line.v),
            element(
              "span",
              { class: "who" },
              task.answerers[line.a],
              seen === line.m || !line.m
                ? null
                : element("span", { class: "small" }, ` (${other(sample, line)})`),
            ),
            element("span", { class: "response", dir: "auto" }, answerText(sample, line)),
          ),
        ),
      ),
    );
  }

  function cosines(sample) {
    return Object.entries(sample.cosines ?? {}).map(
      ([n, value]) =>
        `image cosine ${value.toFixed(3)} (${task.answerers[n]})`,
    );
  }

  function card(group) {
    const facts = group.members.length > 1 ? [`${group.kind} of ${group.members.length}`] : [];
    const order = Number(matchingOrder(group) ?? 0);
    if (order) facts.push(`order ${order + 1}`);
    if (group.kind === "pair") facts.push(...cosines(task.samples[group.members[0]]));
    return element(
      "article",
      { class: "card" },
      element(
        "header",
        {},
        element("h3", { dir: "auto" }, group.key),
        element("span", {}, facts.join(" · ")),
      ),
      element(
        "div",
        { class: "members" },
        group.members.map((n) => member(n, order)),
      ),
    );
  }

  function render() {
    const groups = (found = task.groups.filter(matches));
    const pages = Math.max(1, Math.ceil(groups.length / PAGE));
    const at = Math.min(pages, Math.max(1, Math.floor(Number(state.page)) || 1));
    const kinds = new Set(task.groups.map((group) => group.kind));
    const kind = kinds.size === 1 ? [...kinds][0] : "group";
    const number = (n) => n.toLocaleString("en");
    document.getElementById("count").textContent =
      `${number(groups.length)} of ${number(task.groups.length)} ${kind}${task.groups.length === 1 ? "" : "s"}` +
      (pages > 1 ? `, page ${at} of ${pages}` : "") +
      (state.sample && !sampleOf(state.sample) ? `; there is no sample ${state.sample}` : "");
    const cards = document.getElementById("cards");
    cards.classList.toggle(
      "single",
      task.groups.every((group) => group.members.length === 1),
    );
    cards.replaceChildren(...groups.slice((at - 1) * PAGE, at * PAGE).map(card));
    const turn = (to, text, disabled) =>
      element(
        "button",
        {
          type: "button",
          disabled,
          "data-keep": text,
          on: {
            click: () => {
              change({ page: to > 1 ? String(to) : "" }, "push");
              document.getElementById("samples").scrollIntoView();
            },
          },
        },
        text,
      );
    const pager = document.getElementById("pages");
    page.keepingFocus(pager, () =>
      pager.replaceChildren(
        ...(pages < 2
          ? []
          : [
              turn(1, "First", at === 1),
              turn(at - 1, "Previous", at === 1),
              element("span", {}, `${at} / ${pages}`),
              turn(at + 1, "Next", at === pages),
              turn(pages, "Last", at === pages),
            ]),
      ),
    );
  }

  // --- one sample -------------------------------------------------------------------------------

  function options(sample, line) {
    const chances = probabilities(line);
    const caption = (n) => (line.c === undefined ? option(sample, line, n) : task.candidates[line.c][n]);
    const columns = [["option", caption]];
    if (line.s) {
      const score = (n) => (line.s[n] == null ? "–" : line.s[n].toFixed(4));
      columns.push([line.l ? "mean log-probability" : "cosine similarity", score]);
    }
    if (chances) columns.push(["probability", (n) => `${(100 * chances[n]).toFixed(1)}%`]);
    const role = (n) =>
      [n === (line.g ?? sample.target) && "correct answer", n === line.p && "chosen"]
        .filter(Boolean)
        .join(", ");
    columns.push(["role", role]);
    const order = line.o ?? sample.options.map((_, n) => n);
    const rows = order.map((n) => columns.map(([, cell]) => cell(n)));
    return element(
      "div",
      { class: "scroll" },
      page.table(
        columns.map(([name]) => name),
        rows,
      ),
    );
  }

  function answer(sample, line) {
    const several = sample.lines.some((other) => other.a === line.a && other.i);
    const labelled = (label, text) =>
      text
        ? [element("p", { class: "label" }, label), element("pre", { tabindex: "0", dir: "auto" }, text)]
        : [];
    const number = (n) => n.toLocaleString("en");
    const cut = line.x
      ? ` (the first ${number(line.t.length)} of ${number(line.x)} characters; the log has the complete text)`
      : "";
    return element(
      "section",
      { class: "answer" },
      element(
        "h3",
        {},
        mark(line.v),
        " ",
        task.answerers[line.a],
        several ? ` (order ${(line.i ?? 0) + 1})` : "",
      ),
      line.m && [
        element("p", { class: "label" }, other(sample, line)),
        line.m.length ? imageRow(line.m) : null,
      ],
      labelled("prompt", line.q === undefined ? "" : task.prompts[line.q]),
      line.t === undefined ? [] : labelled(`answer${cut}`, line.t || "(no text)"),
      labelled("error", line.e ?? ""),
      options(sample, line),
      line.d && element("p", { class: "label" }, `extracted by: ${line.d}`),
    );
  }

  const dialog = () => document.getElementById("sample");
  const sampleOf = (id) => task.samples.find((each) => each.id === id);
  const open = (id) => change({ task: task.name, sample: id }, "push", true);

  function step(text, sample) {
    return element(
      "button",
      {
        type: "button",
        disabled: !sample,
        "data-keep": text,
        on: { click: () => change({ sample: sample.id }) },
      },
      text,
    );
  }

  function showSample() {
    const box = dialog();
    const sample = state.sample && sampleOf(state.sample);
    if (!sample) {
      if (box.open) box.close();
      return;
    }
    const number = task.samples.indexOf(sample);
    const row = (found.some((group) => group.members.includes(number)) ? found : task.groups).flatMap(
      (group) => group.members,
    );
    const [before, after] = [-1, 1].map((by) => task.samples[row[row.indexOf(number) + by]]);
    const group = task.groups.find((each) => each.members.includes(number));
    const others = group.members.map((n) => task.samples[n]).filter((each) => each !== sample);
    const facts = ["pair", "set", "category"]
      .filter((key) => sample[key] != null)
      .map((key) => `${key} ${sample[key]}`);
    page.keepingFocus(box, () =>
      box.replaceChildren(
        element(
          "header",
          {},
          element("h2", { id: "sample-title", dir: "auto" }, `${task.name}: ${sample.id}`),
          step("Previous", before),
          step("Next", after),
          element(
            "button",
            { type: "button", "data-keep": "Close", on: { click: () => box.close() } },
            "Close",
          ),
        ),
        element(
          "div",
          { class: "body" },
          element(
            "div",
            { class: "beside" },
            imageRow(sample.images),
            others.map((each) =>
              element(
                "button",
                {
                  type: "button",
                  class: "open other",
                  "data-keep": each.id,
                  "aria-label": `Open sample ${each.id}`,
                  on: { click: () => change({ sample: each.id }) },
                },
                imageRow(each.images),
                element("span", { class: "soft" }, `correct answer: ${each.options[each.target]}`),
              ),
            ),
          ),
          element("p", { class: "soft" }, [...facts, ...cosines(sample)].join(" · ")),
          sample.lines.map((line) => answer(sample, line)),
        ),
      ),
    );
    if (!box.open) box.showModal();
    box.scrollTop = 0;
  }

  // --- state, which is kept in the URL ----------------------------------------------------------

  function choices(select, values, value) {
    select.replaceChildren(...values.map(([key, text]) => element("option", { value: key }, text)));
    select.value = value;
  }

  /** The settings that are valid for the task; the rest of the URL is ignored. */
  function known(given) {
    const valid = { ...given };
    const own = data.find((each) => each.name === given.task) ?? data[0];
    if (!/^\d+$/.test(given.who ?? "") || Number(given.who) >= own.answerers.length) delete valid.who;
    if (!own.categories.includes(given.category)) delete valid.category;
    if (!outcomes(own).some(([key]) => key === given.show)) delete valid.show;
    return [valid, own];
  }

  function outcomes(own) {
    const several = own.answerers.length > 1 ? [["differ", "answers differ"]] : [];
    const flips = comparison ? [...FLIPS].map(([key, [text]]) => [key, text]) : [];
    return [["", "all"], ...[...OUTCOMES].map(([key, [text]]) => [key, text]), ...several, ...flips];
  }

  let last = "",
    settling;
  const change = (...how) => settling.change(...how);

  function apply() {
    const before = task;
    [state, task] = known(page.settings());
    if (task !== before) {
      choices(
        form.task,
        data.map((each) => [each.name, each.name]),
        task.name,
      );
      choices(form.who, [["", "all"], ...task.answerers.map((label, n) => [String(n), label])], "");
      choices(form.category, [["", "all"], ...task.categories.map((each) => [each, each])], "");
      choices(form.show, outcomes(task), "");
      form.category.parentElement.hidden = !task.categories.length;
    }
    for (const name of ["who", "show", "category"]) form[name].value = state[name] ?? "";
    settling.show(state.q);
    const { sample, ...rest } = state;
    const unknown = sample !== undefined && !sampleOf(sample);
    const key = JSON.stringify([Object.entries({ ...rest, task: task.name }).sort(), unknown && sample]);
    if (key !== last) {
      last = key;
      render();
    }
    showSample();
  }

  function start(loaded) {
    ({ tasks: data, images, chunk, comparison } = loaded);
    form = document.getElementById("filters");
    if (!data.length) {
      document.getElementById("samples").hidden = true;
      return;
    }
    settling = page.settling(form.q, apply, { sample: "" });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", ({ target: { name, value } }) => {
      const others = name === "task" ? { who: "", category: "", show: "" } : {};
      if (name !== "q") change({ ...others, [name]: value, page: "", sample: "" }, "push");
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      settling.clear();
      change({ q: "", page: "", who: "", show: "", category: "", sample: "", task: task.name }, "push");
    });
    // Closed by its button, Escape or the back button. Only the latter has removed the setting already.
    page.closable(dialog(), () => page.settings().sample && page.leave(() => change({ sample: "" })));
    page.links(apply, "samples");
    apply();
    const asked = page.settings();
    if (Object.keys(asked).length && !asked.sample) document.getElementById("samples").scrollIntoView();
  }

  return { start };
})();
