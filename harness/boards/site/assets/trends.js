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

  const rowOf = (series) => `${series.model} · ${series.method}`;
  const dayOf = (day) => day.slice(0, 16).replace("T", " "); // to the minute: a date may have several nights

  function show(place) {
    const pick = (name, text) =>
      el(
        "label",
        {},
        `${text} `,
        el("select", { name, onchange: (event) => Harness.change({ [name]: event.target.value }) }),
      );
    now = { picks: el("p", { class: "picks" }, pick("row", "Row"), pick("of", "Column")), body: el("div", {}), turn: 0 };
    update(place);
    return el("section", {}, el("h2", {}, "Trends"), now.picks, now.body);
  }

  async function update(place) {
    const mine = (now.turn += 1);
    now.body.setAttribute("aria-busy", "true");
    try {
      const history = await Harness.load("history");
      if (mine === now.turn) draw(place, history);
    } catch (error) {
      const why = `The nights cannot be read: ${error.message}. Is the folder data/ beside this page complete?`;
      now.body.replaceChildren(el("p", { role: "alert" }, why));
    }
    now.body.removeAttribute("aria-busy");
  }

  function draw(place, { days, notes, series }) {
    const chosen = (name, options) => {
      const field = now.picks.querySelector(`[name=${name}]`);
      if (!field.options.length) field.append(...options.map((value) => el("option", { value }, value)));
      field.value = place.at.get(name) || options[0];
      if (!field.value) field.value = options[0];
      return field.value;
    };
    const row = chosen("row", [...new Set(series.map(rowOf))]);
    const of = chosen("of", [...new Set(series.map((s) => s.column))]);
    const column = Harness.data.columns.find((c) => c.label === of) || { percent: true, label: of };
    const points = (series.find((s) => rowOf(s) === row && s.column === of)?.points || []).map(
      ([day, v, l, h, note]) => ({
        day: dayOf(days[day]),
        t: Date.parse(days[day]),
        v,
        l: l ?? undefined,
        h: h ?? undefined,
        note: note === null ? "" : notes[note],
      }),
    );
    now.body.replaceChildren(
      ...(points.length
        ? [picture(points, column, row), table(points, column)]
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
    wanted: () => Harness.data.nights > 0,
  });
})();
