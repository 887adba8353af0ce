// Shared by all pages: data, theme, URL state, and DOM elements built without markup.
"use strict";

const page = (() => {
  /** Unpack the data of the page. */
  async function load() {
    const text = document.getElementById("data").textContent;
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  /** Make an element. Strings become text nodes and are never parsed as markup. */
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") Object.entries(value).forEach(([event, f]) => made.addEventListener(event, f));
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.flat().filter((child) => child != null && child !== false));
    return made;
  }

  /** Make a table. The first column has row headings; columns from `numbers` on are numeric. */
  function table(headings, rows, numbers = headings.length) {
    const kind = (n) => (n >= numbers ? "number" : null);
    const head = headings.map((text, n) => element("th", { scope: "col", class: kind(n) }, text));
    const cell = (content, n) =>
      n ? element("td", { class: kind(n) }, content) : element("th", { scope: "row", dir: "auto" }, content);
    return element(
      "table",
      {},
      element("thead", {}, element("tr", {}, head)),
      element(
        "tbody",
        {},
        rows.map((cells) => element("tr", {}, cells.map(cell))),
      ),
    );
  }

  /** Mark an SVG as one image with one name; labels of its groups are not valid ARIA. */
  function asImage(svg) {
    svg.setAttribute("role", "img");
    for (const part of svg.querySelectorAll("[aria-label]")) {
      part.dataset.mark = part.getAttribute("aria-label");
      part.removeAttribute("aria-label");
    }
    return svg;
  }

  const pen = document.createElement("canvas").getContext("2d");
  /** Cut a text to a width in pixels, in the font of the charts. */
  function fit(text, pixels) {
    pen.font = "13px system-ui, sans-serif";
    if (pen.measureText(text).width <= pixels) return text;
    let n = text.length;
    while (n > 1 && pen.measureText(`${text.slice(0, n)}…`).width > pixels) n -= 1;
    return `${text.slice(0, n)}…`;
  }
  const widest = (texts) =>
    Math.max(
      0,
      ...texts.map((text) => {
        pen.font = "13px system-ui, sans-serif";
        return pen.measureText(text).width;
      }),
    );

  // --- URL state, which determines what is shown ------------------------------------------------

  /** The name=value pairs after #; empty if the hash is the name of a section. */
  const settings = () =>
    Object.fromEntries([...new URLSearchParams(location.hash.slice(1))].filter(([, value]) => value));

  /**
   * Write settings after #, without empty ones.
   * "push" adds a history entry; `over` marks the entry of a dialog over the page.
   */
  function set(given, how = "replace", over = history.state?.over) {
    const hash = "#" + new URLSearchParams(Object.entries(given).filter(([, value]) => value));
    if (hash === location.hash || (hash === "#" && !location.hash)) return;
    history[`${how}State`](
      { over: how === "push" ? over === true : over },
      "",
      hash === "#" ? location.pathname + location.search : hash,
    );
  }

  /** Close a dialog: go back in history if it has an entry of its own, else call `settle`. */
  function leave(settle) {
    if (history.state?.over) history.back();
    else settle();
  }

  /**
   * Settings that follow choices at once and text typed into `input` after a short delay.
   * A choice made during the delay first stores the text, so that the back button returns to it.
   */
  function settling(input, apply, typed) {
    let waiting;
    const take = () => {
      if (waiting === undefined) return {};
      clearTimeout(waiting);
      waiting = undefined;
      return { q: input.value, page: "" };
    };
    const change = (some, how = "replace", over = undefined) => {
      set({ ...settings(), ...take() });
      set({ ...settings(), ...some }, how, over);
      apply();
    };
    input.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => change(typed), 150);
    });
    return {
      change,
      /** Show the text of the URL, unless typed text is still to be stored. */
      show: (q = "") => waiting === undefined && (input.value = q),
      clear: () => {
        take();
        input.value = "";
      },
    };
  }

  /** Links to a section keep the settings; links that hold settings apply them and scroll to `target`. */
  function links(apply, target) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.('a[href^="#"]');
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const hash = link.getAttribute("href").slice(1);
      const part = hash.includes("=") ? document.getElementById(target) : document.getElementById(hash);
      if (!part) return;
      event.preventDefault();
      if (hash.includes("=")) {
        set(Object.fromEntries(new URLSearchParams(hash)), "push", false);
        apply();
      }
      part.scrollIntoView();
      if (!part.hasAttribute("tabindex")) part.tabIndex = -1;
      part.focus({ preventScroll: true });
    });
    for (const event of ["popstate", "hashchange"]) addEventListener(event, apply);
  }

  /** Run `work`, which rebuilds elements, and keep the focus on the one of the same name, or near it. */
  function keepingFocus(box, work) {
    const inside = box.contains(document.activeElement) && document.activeElement !== box;
    const name = inside ? document.activeElement.dataset.keep : undefined;
    work();
    if (!inside) return;
    const usable = [...box.querySelectorAll("[data-keep]:not(:disabled)")];
    const again = usable.find((each) => each.dataset.keep === name) ?? usable[0];
    again?.focus({ preventScroll: true });
  }

  /** Close a dialog by a click beside it, unless the press began inside, as when selecting text. */
  function closable(box, closed) {
    let beside = false;
    box.addEventListener("mousedown", ({ target }) => (beside = target === box));
    box.addEventListener("click", ({ target }) => beside && target === box && box.close());
    box.addEventListener("close", closed);
  }

  return {
    load,
    element,
    table,
    asImage,
    fit,
    widest,
    settings,
    set,
    leave,
    settling,
    links,
    keepingFocus,
    closable,
  };
})();

(() => {
  const button = document.getElementById("theme");
  const kept = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-pressed", String(theme === "dark"));
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  apply(kept() || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => {
    if (!kept()) apply(system.matches ? "dark" : "light");
  });
  button.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", theme);
    } catch {
      /* private mode: the choice holds for this page only */
    }
    apply(theme);
  });
})();
