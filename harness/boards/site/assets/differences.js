// Differences to the baseline, as a map (methods down, models across for one column, or all columns across for one
// model) or as a forest (a picture a column).
"use strict";

(() => {
  const { el } = Harness;
  let now = null;

  function show(place) {
    const columns = Harness.data.columns.map((column, at) => ({ ...column, at }));
    const models = [...new Set(Harness.data.rows.map((row) => row.model))];
    const options = [
      ...models.map((model, at) => [`m${at}`, models.length > 1 ? `all columns of ${model}` : "all columns"]),
      ...(models.length > 1 ? columns.map((column) => [`c${column.at}`, `${column.label}, all models`]) : []),
    ];
    const pick = el(
      "select",
      { name: "map", onchange: (event) => Harness.change({ map: event.target.value }) },
      options.map(([value, text]) => el("option", { value }, text)),
    );
    const look = el(
      "select",
      { name: "as", onchange: (event) => Harness.change({ as: event.target.value }) },
      el("option", { value: "map" }, "map"),
      el("option", { value: "forest" }, "forest"),
    );
    now = { columns, models, pick, look, body: el("div", {}) };
    const page = el(
      "section",
      {},
      el("h2", {}, "Differences"),
      el(
        "p",
        { class: "lead" },
        `A method minus ${Harness.data.baseline} of the same model, on the same items, with its 95 % interval. `,
        "Only what is coloured is a finding; grey is undecided; hatched or hollow has one seed.",
      ),
      el("p", { class: "picks" }, el("label", {}, "Show ", pick), el("label", {}, "as ", look)),
      key(),
      now.body,
    );
    update(place);
    return page;
  }

  function key() {
    return el(
      "p",
      { class: "key" },
      Object.entries(Harness.SIGNS).map(([verdict, [sign, words]]) =>
        el("span", { class: `field ${verdict.replace(" ", "-")}` }, `${sign} ${words}`),
      ),
    );
  }

  function update(place) {
    const { columns, models, pick, look, body } = now;
    const first = models.length > 1 ? `c${(columns.find((c) => c.headline) || columns[0]).at}` : "m0";
    pick.value = place.at.get("map") || first;
    if (!pick.value) pick.value = first;
    look.value = place.at.get("as") === "forest" ? "forest" : "map";
    const of = Number(pick.value.slice(1));
    const rows = Harness.rows(place.at).filter((row) => row.method !== Harness.data.baseline);
    const wide = pick.value[0] === "m";
    if (look.value === "forest") {
      body.replaceChildren(...Harness.forest(wide ? eachColumn(rows, columns, models[of]) : [eachRow(rows, columns[of])]));
      return;
    }
    const across = wide ? byColumn(rows, columns, models[of]) : byModel(rows, columns[of], models);
    body.replaceChildren(
      across.lines.length
        ? el(
            "div",
            { class: "scroll", tabindex: "0", role: "region", "aria-label": "Map of differences" },
            grid(across),
          )
        : el("p", {}, "No row of these has a difference."),
    );
  }

  // In a forest a seed stands apart from its method, and needs its name.
  const nameOf = (row) => (row.level === "cell" ? `${row.above.label}: ${row.label}` : row.label);

  function eachColumn(rows, columns, model) {
    const ours = rows.filter((row) => row.model === model);
    return columns.map((column) => ({
      title: column.label,
      column,
      lines: ours.map((row) => [nameOf(row), row.entries[column.at].d]),
    }));
  }

  const eachRow = (rows, column) => ({
    title: column.label,
    column,
    lines: rows.map((row) => [`${nameOf(row)} of ${row.model}`, row.entries[column.at].d]),
  });

  function byColumn(rows, columns, model) {
    const lines = rows
      .filter((row) => row.model === model)
      .map((row) => [row.label, columns.map((column) => ({ d: row.entries[column.at].d, column, row }))]);
    return { heads: columns.map((column) => column.label), lines };
  }

  function byModel(rows, column, models) {
    const found = new Map();
    for (const row of rows) {
      if (!found.has(row.label)) found.set(row.label, new Map());
      found.get(row.label).set(row.model, { d: row.entries[column.at].d, column, row });
    }
    return {
      heads: models,
      lines: [...found].map(([label, by]) => [label, models.map((model) => by.get(model) || { column })]),
    };
  }

  function grid({ heads, lines }) {
    return el(
      "table",
      { class: "map" },
      el("caption", { class: "unseen" }, "Differences"),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col", class: "text" }, "method"),
          heads.map((head) => el("th", { scope: "col" }, head)),
        ),
      ),
      el(
        "tbody",
        {},
        lines.map(([label, fields]) => el("tr", {}, el("th", { scope: "row" }, label), fields.map(field))),
      ),
    );
  }

  function field({ d, column, row }) {
    if (!d || d.v === undefined) {
      const why = d?.reason !== undefined ? Harness.data.sentences[d.reason] : "no difference";
      return el("td", { class: "field refused", title: why }, "–");
    }
    const [sign, words] = Harness.SIGNS[d.verdict];
    return el(
      "td",
      {
        class: `field ${d.verdict.replace(" ", "-")} ${Math.abs(d.v) >= strong(column) ? "strong" : ""}`,
        title: `${row.model} ${row.label}, ${column.label}: ${words}`,
      },
      el("span", { class: "sign", role: "img", "aria-label": words }, sign),
      el("b", {}, Harness.number(d.v, column, true)),
      el("span", { class: "range" }, Harness.interval(d, column)),
    );
  }

  // Half of the largest difference in its column: two shades are told apart easily, more are not.
  const halves = new Map();
  function strong(column) {
    if (!halves.has(column.at)) {
      const all = Harness.data.rows.map((row) => Math.abs(row.entries[column.at].d?.v ?? 0));
      halves.set(column.at, all.reduce((a, b) => Math.max(a, b), 0) / 2);
    }
    return halves.get(column.at);
  }

  Harness.view("differences", {
    title: "Differences",
    filtered: true,
    show,
    update,
    wanted: () => Boolean(Harness.data.baseline),
  });
})();
