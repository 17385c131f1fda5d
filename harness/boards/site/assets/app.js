// Starts the page: the row of views, the filters, and which view is drawn for an address.
"use strict";

(() => {
  const { el } = Harness;
  let drawn = ""; // what the main part shows; the same place is redrawn without moving the focus

  Harness.start = () => {
    const data = Harness.data;
    document.title = data.title;
    document.getElementById("title").textContent = data.title;
    let above = null; // the method that the next seeds belong to
    data.rows.forEach((row, at) => {
      row.at = at;
      if (row.level === "method") above = row;
      row.above = above;
      row.text = `${row.model} ${row.method} ${row.label}`.toLowerCase();
    });
    filters(data);
    foot(data);
    addEventListener("hashchange", () => {
      if (location.hash !== "#main") Harness.show();
    });
    Harness.show();
  };

  Harness.show = () => {
    const place = Harness.place();
    const view = named(place);
    const same = `${place.view}/${place.of}`;
    navigation(place);
    settle(place.at);
    document.getElementById("filters").hidden = !view.filtered;
    document.querySelector("#filters [name=delta]")?.closest("label").toggleAttribute("hidden", !view.differs);
    const main = document.getElementById("main");
    if (same === drawn && view.update) {
      view.update(place);
    } else {
      main.replaceChildren(view.show(place));
      if (drawn) {
        main.focus({ preventScroll: true });
        scrollTo(0, 0);
      }
    }
    drawn = same;
    document.documentElement.dataset.shown = location.hash;
  };

  // An address may name what this board does not have: an old link, or a mistake in typing.
  function named(place) {
    const view = Harness.views.get(place.view);
    const known =
      view && (view.wanted ? view.wanted() : place.view !== "suite" || Harness.data.suites.includes(place.of));
    if (!known) [place.view, place.of] = ["overview", ""];
    return Harness.views.get(place.view);
  }

  // Which rows the filters leave.
  Harness.rows = (at) => {
    const words = (at.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const seeds = Number(at.get("seeds") || 0);
    return Harness.data.rows.filter(
      (row) =>
        (row.level === "method" || at.get("each")) &&
        words.every((word) => row.text.includes(word)) &&
        (!at.get("model") || row.model === at.get("model")) &&
        (!at.get("family") || row.families.includes(at.get("family"))) &&
        (!seeds || !row.trained || row.level === "cell" || row.seeds.length >= seeds),
    );
  };

  function navigation(place) {
    const at = Harness.kept(place.at);
    const entries = [["overview", "", "Overview"]];
    for (const suite of Harness.data.suites) entries.push(["suite", suite, suite.replaceAll("_", " ")]);
    for (const [name, view] of Harness.views) {
      if (view.title && (!view.wanted || view.wanted())) entries.push([name, "", view.title]);
    }
    document
      .getElementById("views")
      .replaceChildren(
        ...entries.map(([name, of, text]) =>
          el(
            "a",
            { href: Harness.address(name, of, at), "aria-current": name === place.view && of === place.of && "page" },
            text,
          ),
        ),
      );
  }

  function filters(data) {
    const form = document.getElementById("filters");
    const models = [...new Set(data.rows.map((row) => row.model))];
    const families = [...new Set(data.rows.flatMap((row) => row.families))].sort();
    const seeds = [
      ...new Set(data.rows.filter((row) => row.trained && row.level === "method").map((row) => row.seeds.length)),
    ];
    const many = data.rows.some((row) => row.level === "cell");
    form.append(
      el(
        "label",
        {},
        "Search ",
        el("input", { type: "search", name: "q", placeholder: "method or model", autocomplete: "off" }),
      ),
      ...(models.length > 1 ? [choice("model", "Model", [["", "all"], ...models.map((m) => [m, m])])] : []),
      ...(families.length > 1 ? [choice("family", "Family", [["", "all"], ...families.map((f) => [f, f])])] : []),
      ...(seeds.length > 1
        ? [choice("seeds", "Seeds", [["", "any"], ...seeds.sort((a, b) => a - b).map((n) => [n, `${n} or more`])])]
        : []),
      ...(many ? [tick("each", "each seed")] : []),
      ...(data.baseline ? [tick("delta", `difference to ${data.baseline}`)] : []),
      el("output", { id: "count" }),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      const { name, type, checked, value } = event.target;
      Harness.change({ [name]: type === "checkbox" ? (checked ? "1" : "") : value });
    });
  }

  function choice(name, text, options) {
    return el(
      "label",
      {},
      `${text} `,
      el(
        "select",
        { name },
        options.map(([value, shown]) => el("option", { value }, shown)),
      ),
    );
  }

  function tick(name, text) {
    return el("label", {}, el("input", { type: "checkbox", name }), ` ${text}`);
  }

  // The form follows the address, which may have come from a link.
  function settle(at) {
    for (const field of document.getElementById("filters").elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") field.checked = Boolean(at.get(field.name));
      else if (field !== document.activeElement) field.value = at.get(field.name) || "";
    }
    const shown = Harness.rows(at).length;
    const all = Harness.data.rows.filter((row) => row.level === "method" || at.get("each")).length;
    const text = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
    const count = document.getElementById("count");
    if (count.textContent !== text) {
      count.textContent = text;
    }
  }

  function foot(data) {
    document
      .getElementById("foot")
      .append(
        el(
          "p",
          {},
          el("strong", {}, data.name),
          ". Every number has its interval; ",
          el("a", { href: "#/reading" }, "how to read this board"),
          ".",
        ),
        ...(data.reproduce ? [el("p", {}, "Made again by ", el("code", {}, data.reproduce))] : []),
      );
  }
})();
