// Browsing samples: filters, pages of groups side by side, one sample in full, an address for each view.
"use strict";

const gallery = (() => {
  const { element } = page;
  const PAGE = 24;
  const SAID = 300; // characters of an answer on a card
  const MARKS = {
    r: ["✓", "right"], w: ["✗", "wrong"], t: ["=", "tied"], u: ["?", "unparsed"], e: ["!", "failed"],
  };
  const SHOW = {
    "": ["everything", () => true],
    wrong: ["not all right", (v) => v.some((x) => x !== "r")],
    none: ["none right", (v) => v.every((x) => x !== "r")],
    part: ["some of a group right", (v) => v.includes("r") && v.some((x) => x !== "r")],
    right: ["all right", (v) => v.every((x) => x === "r")],
    unparsed: ["unparsed", (v) => v.includes("u")],
    failed: ["failed", (v) => v.includes("e")],
    tied: ["tied", (v) => v.includes("t")],
  };
  const BETWEEN = {
    differ: ["answerers differ", (a, b) => a !== b],
    gained: ["B right, A not", (a, b) => b === "r" && a !== "r"],
    lost: ["A right, B not", (a, b) => a === "r" && b !== "r"],
  };

  let data, images, form, state, found;

  // --- images, which lie at the end of the file -------------------------------------------------

  const CHUNK = 64;
  function source(number) {
    const chunk = document.getElementsByClassName("images")[Math.floor(number / CHUNK)];
    if (!chunk) return null;
    chunk.lines ??= chunk.textContent.split("\n");
    return "data:image/webp;base64," + chunk.lines[number % CHUNK];
  }

  function picture(index) {
    const { path, number, note } = images[index] ?? { path: "", note: "shown without images" };
    if (number === undefined) return element("p", {}, note, element("br"), path);
    const made = element("img", { alt: path, title: path, decoding: "async" });
    const show = () => { const url = source(number); if (url) made.src = url; return url; };
    // The page may still be read: images come last in it.
    if (!show()) document.addEventListener("DOMContentLoaded", show, { once: true });
    return made;
  }

  const pictures = (sample) => element("div", { class: "pictures" },
    sample.images.length ? sample.images.map(picture) : element("p", {}, "no image was shown"));

  // --- what was answered ------------------------------------------------------------------------

  const target = (sample, line) => line.g ?? sample.target;
  const mark = (verdict) => element("span", { class: `mark ${verdict}` },
    element("span", { "aria-hidden": "true" }, MARKS[verdict][0]), element("span", { class: "hidden" }, MARKS[verdict][1]));

  function said(sample, line) {
    if (line.v === "e") return `failed: ${line.e ?? ""}`.slice(0, SAID);
    if (line.t !== undefined) return (line.t || "(no text)").slice(0, SAID);
    if (line.p == null) return "tied";
    return sample.options[line.p];
  }

  /** The probability of each option among those shown; null where there are no log-probabilities. */
  function probabilities(line) {
    if (!line.l || line.l.some((x) => x == null)) return null;
    const top = Math.max(...line.l), weights = line.l.map((x) => Math.exp(x - top));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((x) => x / sum);
  }

  // --- which groups -----------------------------------------------------------------------------

  const lines = (sample, who) => (who === "" ? sample.lines : sample.lines.filter((line) => line.a === Number(who)));

  function fits(task, group) {
    const members = group.members.map((n) => task.samples[n]);
    if (state.category && !members.some((sample) => sample.category === state.category)) return false;
    if (state.q && !words(task, group).includes(state.q.toLowerCase())) return false;
    if (!state.show) return true;
    if (BETWEEN[state.show]) {
      const test = BETWEEN[state.show][1];
      if (state.show !== "differ") {
        return members.some((sample) => test(sample.lines.find((l) => l.a === 0)?.v, sample.lines.find((l) => l.a === 1)?.v));
      }
      return members.some((sample) => sample.lines.some((line) => line.v !== sample.lines[0].v || line.p !== sample.lines[0].p));
    }
    // Whether a group is right is a matter of one answerer and one order of the options.
    const asked = new Map();
    for (const sample of members) {
      for (const line of lines(sample, state.who ?? "")) {
        const key = `${line.a} ${line.i ?? 0}`;
        asked.set(key, [...(asked.get(key) ?? []), line.v]);
      }
    }
    const test = SHOW[state.show][1];
    return [...asked.values()].some((verdicts) => test(verdicts));
  }

  function words(task, group) {
    return group.words ??= group.members.map((n) => {
      const sample = task.samples[n];
      const parts = [sample.id, sample.pair, sample.set, ...sample.options, ...sample.images.map((i) => images[i]?.path)];
      for (const line of sample.lines) {
        parts.push(line.t, line.e);
        if (line.q !== undefined) parts.push(task.prompts[line.q]);
        if (line.c !== undefined) parts.push(...task.candidates[line.c]);
      }
      return parts.filter(Boolean).join("\n");
    }).join("\n").toLowerCase();
  }

  // --- cards ------------------------------------------------------------------------------------

  function asked(task, sample) {
    const line = sample.lines.find((each) => each.q !== undefined) ?? sample.lines[0];
    return line.q !== undefined ? task.prompts[line.q] : task.candidates[line.c]?.join("\n") ?? sample.options.join(" / ");
  }

  function member(task, number) {
    const sample = task.samples[number];
    const shown = lines(sample, state.who ?? "").filter((line) => !line.i);
    return element("div", { class: "member" },
      element("button", { type: "button", class: "open", "aria-label": `Open sample ${sample.id}`, on: { click: () => open(task.name, sample.id) } }, pictures(sample)),
      element("p", { class: "asked", dir: "auto" }, asked(task, sample)),
      element("p", { class: "gold", dir: "auto" }, `Right answer: ${sample.options[sample.target]}`),
      element("ul", { class: "answers" }, shown.map((line) => element("li", {}, mark(line.v),
        element("span", { class: "who" }, task.answerers[line.a]),
        element("span", { class: "said", dir: "auto" }, said(sample, line))))));
  }

  function cosines(task, sample) {
    const known = Object.entries(sample.cosines ?? {});
    return known.map(([n, value]) => `cosine ${value.toFixed(3)}` + (task.answerers.length > 1 ? ` (${task.answerers[n]})` : ""));
  }

  function card(task, group) {
    const facts = group.members.length > 1 ? [`${group.kind} of ${group.members.length}`] : [];
    if (group.kind === "pair") facts.push(...cosines(task, task.samples[group.members[0]]));
    return element("article", { class: "card" },
      element("header", {}, element("h3", { dir: "auto" }, group.key), element("span", {}, facts.join(" · "))),
      element("div", { class: "members" }, group.members.map((n) => member(task, n))));
  }

  function render() {
    const task = data.find((each) => each.name === state.task) ?? data[0];
    const groups = found = task.groups.filter((group) => fits(task, group));
    const pages = Math.max(1, Math.ceil(groups.length / PAGE));
    const at = Math.min(pages, Math.max(1, Number(state.page) || 1));
    const plural = task.groups[0]?.kind === "sample" ? "samples" : `${task.groups[0]?.kind ?? "group"}s`;
    document.getElementById("count").textContent =
      `${groups.length} of ${task.groups.length} ${plural}` + (pages > 1 ? `, page ${at} of ${pages}` : "");
    const cards = document.getElementById("cards");
    cards.classList.toggle("single", task.groups.every((group) => group.members.length === 1));
    cards.replaceChildren(...groups.slice((at - 1) * PAGE, at * PAGE).map((group) => card(task, group)));
    const turn = (to, text, disabled) => element("button", { type: "button", disabled, on: { click: () => {
      change({ page: to > 1 ? String(to) : "" });
      document.getElementById("samples").scrollIntoView();
    } } }, text);
    document.getElementById("pages").replaceChildren(...(pages < 2 ? [] : [
      turn(1, "First", at === 1), turn(at - 1, "Previous", at === 1), element("span", {}, `${at} / ${pages}`),
      turn(at + 1, "Next", at === pages), turn(pages, "Last", at === pages)]));
  }

  // --- one sample -------------------------------------------------------------------------------

  function answer(task, sample, line) {
    const chances = probabilities(line);
    const order = line.o ?? sample.options.map((_, n) => n);
    const parts = [element("h3", {}, mark(line.v), " ", task.answerers[line.a], line.i ? ` (order ${line.i + 1})` : "")];
    const labelled = (label, text) => text && parts.push(element("p", { class: "label" }, label), element("pre", { tabindex: "0", dir: "auto" }, text));
    labelled("asked", line.q === undefined ? "" : task.prompts[line.q]);
    if (line.t !== undefined) labelled(`answered${line.x ? ` (the first ${line.t.length.toLocaleString("en")} of ${line.x.toLocaleString("en")} characters; the log has all)` : ""}`, line.t || "(no text)");
    labelled("failed", line.e ?? "");
    const candidates = line.c === undefined ? null : task.candidates[line.c];
    const head = ["option", line.s && (line.l ? "mean log-probability" : "cosine"), chances && "probability", "is"].filter(Boolean);
    parts.push(element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, order.map((n) => element("tr", {},
        element("th", { scope: "row", dir: "auto" }, candidates?.[n] ?? sample.options[n]),
        line.s && element("td", { class: "number" }, line.s[n] == null ? "–" : line.s[n].toFixed(4)),
        chances && element("td", { class: "number" }, `${(100 * chances[n]).toFixed(1)}%`),
        element("td", {}, [n === target(sample, line) && "right answer", n === line.p && "chosen"].filter(Boolean).join(", "))))))));
    if (line.d) parts.push(element("p", { class: "label" }, `read by: ${line.d}`));
    return element("section", { class: "answer" }, parts);
  }

  const dialog = () => document.getElementById("sample");

  function open(name, id) {
    change({ task: name, sample: id }, true);
  }

  function showSample() {
    const box = dialog();
    const task = data.find((each) => each.name === state.task) ?? data[0];
    const sample = state.sample && task.samples.find((each) => each.id === state.sample);
    if (!sample) {
      if (box.open) box.close();
      return;
    }
    const row = (found.length ? found : task.groups).flatMap((group) => group.members);
    const at = row.indexOf(task.samples.indexOf(sample));
    const step = (by, text) => {
      const next = task.samples[row[at + by]];
      return element("button", { type: "button", disabled: at < 0 || !next, on: { click: () => change({ sample: next.id }) } }, text);
    };
    const facts = ["pair", "set", "category"].filter((key) => sample[key] != null).map((key) => `${key} ${sample[key]}`);
    const group = task.groups.find((each) => each.members.includes(task.samples.indexOf(sample)));
    const others = group.members.map((n) => task.samples[n]).filter((each) => each !== sample);
    box.replaceChildren(
      element("header", {}, element("h2", { id: "sample-title", dir: "auto" }, `${task.name}: ${sample.id}`),
        step(-1, "Previous"), step(1, "Next"),
        element("button", { type: "button", on: { click: () => box.close() } }, "Close")),
      element("div", { class: "body" },
        element("div", { class: "beside" }, pictures(sample), others.map((other) => element("button", {
          type: "button", class: "open other", "aria-label": `Open sample ${other.id}`, on: { click: () => change({ sample: other.id }) },
        }, pictures(other), element("span", { class: "soft" }, `right answer: ${other.options[other.target]}`)))),
        element("p", { class: "soft" }, [...facts, ...cosines(task, sample)].join(" · ")),
        sample.lines.map((line) => answer(task, sample, line))));
    if (!box.open) box.showModal();
    box.scrollTop = 0;
  }

  // --- state ------------------------------------------------------------------------------------

  function change(some, remember = false) {
    state = { ...state, ...some };
    page.set(state, remember);
    apply();
  }

  const options = (select, values, value) => {
    select.replaceChildren(...values.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
    select.value = value;
  };

  let last = "";
  function apply() {
    const task = data.find((each) => each.name === state.task) ?? data[0];
    options(form.task, data.map((each) => [each.name, each.name]), task.name);
    options(form.who, [["", "anyone"], ...task.answerers.map((label, n) => [String(n), label])], state.who ?? "");
    const between = task.answerers.length < 2 ? [] : Object.entries(BETWEEN).filter(([key]) => key === "differ" || page.comparison);
    options(form.show, [...Object.entries(SHOW), ...between].map(([key, [text]]) => [key, text]), state.show ?? "");
    options(form.category, [["", "all"], ...task.categories.map((each) => [each, each])], state.category ?? "");
    form.category.parentElement.hidden = !task.categories.length;
    if (document.activeElement !== form.q) form.q.value = state.q ?? "";
    const { sample, ...rest } = state;
    const key = JSON.stringify({ ...rest, task: task.name });
    if (key !== last) { last = key; render(); }
    showSample();
  }

  function start(loaded, entries) {
    [data, images] = [loaded, entries];
    form = document.getElementById("filters");
    if (!data.length) { document.getElementById("samples").hidden = true; return; }
    state = page.settings();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => {
      const { name, value } = event.target;
      if (name !== "q") change({ [name]: name === "task" && value === data[0].name ? "" : value, page: "", ...(name === "task" && { who: "", category: "" }) });
    });
    let timer;
    form.q.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => change({ q: form.q.value, page: "" }), 150);
    });
    form.addEventListener("reset", () => setTimeout(() => change({ task: state.task, who: "", show: "", category: "", q: "", page: "" })));
    dialog().addEventListener("close", () => state.sample && change({ sample: "" }));
    dialog().addEventListener("click", (event) => event.target === dialog() && dialog().close());
    addEventListener("popstate", () => { state = page.settings(); apply(); });
    addEventListener("hashchange", () => { state = page.settings(); apply(); });
    apply();
    if (Object.keys(state).length && !state.sample) document.getElementById("samples").scrollIntoView();
  }

  return { start };
})();
