// Numbers over time: one row and column, night by night, with intervals and what happened.
"use strict";

(() => {
  const { el, svg } = Harness;
  const HEIGHT = 320,
    LEFT = 62,
    RIGHT = 20,
    TOP = 16,
    BOTTOM = 40;
  let now = null;
  let WIDTH = 760; // of the picture now drawn

  const rowOf = (point) => `${point.model} · ${point.method}`;

  function show(place) {
    const points = Harness.data.history;
    const pick = (name, text, options) =>
      el(
        "label",
        {},
        `${text} `,
        el(
          "select",
          { name, onchange: (event) => Harness.change({ [name]: event.target.value }) },
          options.map((option) => el("option", { value: option }, option)),
        ),
      );
    const picks = el(
      "p",
      { class: "picks" },
      pick("row", "Row", [...new Set(points.map(rowOf))]),
      pick("of", "Column", [...new Set(points.map((p) => p.column))]),
    );
    now = { picks, body: el("div", {}) };
    const page = el("section", {}, el("h2", {}, "Trends"), picks, now.body);
    update(place);
    return page;
  }

  function update(place) {
    const [row, of] = ["row", "of"].map((name) => now.picks.querySelector(`[name=${name}]`));
    for (const field of [row, of]) {
      field.value = place.at.get(field.name) || field.options[0].value;
      if (!field.value) field.value = field.options[0].value;
    }
    const column = Harness.data.columns.find((c) => c.label === of.value) || { percent: true, label: of.value };
    const points = Harness.data.history
      .filter((p) => rowOf(p) === row.value && p.column === of.value)
      .map((p) => ({ ...p, v: p.value, l: p.low ?? undefined, h: p.high ?? undefined, t: Date.parse(p.day) }));
    now.body.replaceChildren(
      ...(points.length
        ? [picture(points, column, row.value), table(points, column)]
        : [el("p", {}, "This row was never measured on this column.")]),
    );
  }

  function picture(points, column, row) {
    WIDTH = Harness.room();
    const y = Harness.axis(
      points.flatMap((p) => [p.l ?? p.v, p.h ?? p.v]),
      HEIGHT - BOTTOM,
      TOP,
      false,
    );
    const [first, last] = [points[0].t, points[points.length - 1].t];
    const x = (t) =>
      last > first ? LEFT + 14 + ((t - first) / (last - first)) * (WIDTH - RIGHT - LEFT - 28) : (LEFT + WIDTH) / 2;
    const text = (at, words, anchor) =>
      svg("text", { x: x(at), y: HEIGHT - BOTTOM + 20, "text-anchor": anchor }, words);
    return el(
      "figure",
      { class: "plot" },
      svg(
        "svg",
        {
          viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
          role: "img",
          "aria-label": `${row}, ${column.label}, from ${points[0].day} to ${points[points.length - 1].day}`,
        },
        y.ticks
          .map((t) => [
            svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(t), y2: y.at(t) }),
            svg("text", { x: LEFT - 8, y: y.at(t) + 4, "text-anchor": "end" }, Harness.number(t, column)),
          ])
          .flat(),
        svg("path", { class: "line", d: points.map((p, i) => `${i ? "L" : "M"}${x(p.t)} ${y.at(p.v)}`).join("") }),
        points.map((p) =>
          svg(
            "g",
            { class: `spot m0 ${p.note ? "on" : ""}` },
            svg("title", {}, `${p.day}: ${Harness.number(p.v, column)} (${Harness.interval(p, column)}) ${p.note}`),
            p.l === undefined ? null : svg("line", { x1: x(p.t), x2: x(p.t), y1: y.at(p.l), y2: y.at(p.h) }),
            svg("circle", { cx: x(p.t), cy: y.at(p.v), r: 5 }),
          ),
        ),
        text(first, points[0].day, last > first ? "start" : "middle"),
        last > first ? text(last, points[points.length - 1].day, "end") : null,
      ),
      el("figcaption", {}, "Bars are 95 % intervals. A night without a number is a gap in the table, never a zero."),
    );
  }

  function table(points, column) {
    return el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers by day" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["day", column.label, "95 % interval", "what happened"].map((head) =>
              el("th", { scope: "col", class: "text" }, head),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          [...points]
            .reverse()
            .map((p) =>
              el(
                "tr",
                {},
                el("th", { scope: "row" }, p.day),
                el("td", { class: "number" }, Harness.number(p.v, column)),
                el("td", { class: "number" }, Harness.interval(p, column)),
                el("td", { class: "text" }, p.note),
              ),
            ),
        ),
      ),
    );
  }

  Harness.view("trends", {
    title: "Trends",
    filtered: false,
    show,
    update,
    wanted: () => Harness.data.history.length > 0,
  });
})();
