// What rows cost: a table of every cost, and scores against one cost with the rows that nothing beats on both.
"use strict";

(() => {
  const { el, svg } = Harness;
  const HEIGHT = 420,
    LEFT = 62,
    RIGHT = 20,
    TOP = 16,
    BOTTOM = 48;
  let now = null;
  let WIDTH = 760; // of the picture now drawn

  // Costs that no row has are left out of the list, so a row's cost is found by name.
  Harness.costAt = (key) => Harness.data.cost_names.indexOf(key);
  Harness.costColumn = ({ key, text, kind, at }) => ({
    key,
    head: text,
    value: (row) => row.cost[at],
    cell: (row) => el("td", { class: "number" }, Harness.amount(row.cost[at], kind)),
  });

  const listed = () => Harness.data.costs.map(([key, text, kind]) => ({ key, text, kind, at: Harness.costAt(key) }));

  function show(place) {
    const costs = listed();
    const columns = Harness.data.columns.map((column, at) => ({ ...column, at }));
    const notes = Harness.notes();
    const table = Harness.table(
      [...Harness.nameColumns(notes), ...costs.map(Harness.costColumn)],
      "Costs of every row",
      Harness.change,
    );
    const figure = el("figure", { class: "plot" });
    const picks = el(
      "p",
      { class: "picks" },
      select(
        "y",
        "Score",
        columns.map((column) => [column.at, column.label]),
      ),
      select(
        "x",
        "against",
        costs.map((cost) => [cost.key, cost.text]),
      ),
    );
    now = { table, figure, costs, columns, picks };
    const page = el("section", {}, el("h2", {}, "Cost"), picks, figure, el("h3", {}, "All costs"), table.node);
    update(place);
    return page;
  }

  function select(name, text, options) {
    const change = (event) => Harness.change({ [name]: event.target.value });
    return el(
      "label",
      {},
      `${text} `,
      el(
        "select",
        { name, onchange: change },
        options.map(([value, shown]) => el("option", { value }, shown)),
      ),
    );
  }

  function update(place) {
    const { table, figure, costs, columns, picks } = now;
    const first = columns.find((column) => column.headline) || columns[0];
    const column = columns.find((c) => String(c.at) === place.at.get("y")) || first;
    const cost =
      costs.find((c) => c.key === place.at.get("x")) || costs.find((c) => c.key === "train_seconds") || costs[0];
    picks.querySelector("[name=y]").value = column.at;
    if (cost) picks.querySelector("[name=x]").value = cost.key;
    const rows = Harness.rows(place.at);
    figure.replaceChildren(...plot(rows, column, cost));
    table.draw(rows, place.at);
  }

  function plot(rows, column, cost) {
    const points = rows
      .map((row) => ({ row, ...row.entries[column.at], x: cost ? row.cost[cost.at] : null }))
      .filter((p) => p.v !== undefined && p.x > 0);
    const flat = rows.filter((row) => row.entries[column.at].v !== undefined && !(cost && row.cost[cost.at] > 0));
    if (!points.length)
      return [el("p", {}, `No row of these has both ${column.label} and ${cost ? cost.text : "a cost"}.`)];
    const best = frontier(points);
    WIDTH = Harness.room();
    const x = Harness.axis(
      points.map((p) => p.x),
      LEFT,
      WIDTH - RIGHT,
      true,
    );
    const y = Harness.axis(
      [...points, ...flat.map((row) => row.entries[column.at])].flatMap((p) => [p.l ?? p.v, p.h ?? p.v]),
      HEIGHT - BOTTOM,
      TOP,
      false,
    );
    const models = [...new Set(Harness.data.rows.map((row) => row.model))];
    const leaders = best.map((p) => p.row.label).join(", ");
    const label = `${column.label} against ${cost.text}. Not beaten on both: ${leaders}.`;
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
      grid(x, y, column, cost),
      flat
        .filter((row) => row.method === Harness.data.baseline)
        .slice(0, 4)
        .map((row, at) => level(row, column, y, models.length > 1, at)),
      svg("path", { class: "frontier", d: steps(best, x, y) }),
      points.map((p) => spot(p, x, y, column, cost, models, best.includes(p))),
      labels(best, x, y),
    );
    const legend =
      models.length > 1
        ? el(
            "p",
            { class: "legend" },
            models.map((model, at) =>
              el(
                "span",
                { class: `m${at % 6}` },
                `${Harness.SIGNS_OF_SHAPES[at % 4]} ${model}  `,
              ),
            ),
          )
        : null;
    const unspent = flat.map((row) => (models.length > 1 ? `${row.label} of ${row.model}` : row.label)).join(", ");
    const caption = el(
      "figcaption",
      {},
      "Up is better, left is cheaper; costs on a logarithmic scale. ",
      "The line joins the rows that no other row beats on both, ",
      "by their point values: where bars overlap, the order may be chance. ",
      flat.length
        ? `Not in the picture, because nothing was spent: ${unspent} (a dashed line where it is the baseline).`
        : null,
    );
    return [picture, legend, caption].filter(Boolean);
  }

  // From the cheapest on, every point that is better than all cheaper ones.
  function frontier(points) {
    let best = -Infinity;
    return [...points].sort((a, b) => a.x - b.x || b.v - a.v).filter((p) => p.v > best && ((best = p.v), true));
  }

  function grid(x, y, column, cost) {
    return [
      ...y.ticks
        .map((t) => [
          svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(t), y2: y.at(t) }),
          svg("text", { x: LEFT - 8, y: y.at(t) + 4, "text-anchor": "end" }, Harness.number(t, column)),
        ])
        .flat(),
      ...Harness.apart(x)
        .map((t) => [
          svg("line", { class: "grid", x1: x.at(t), x2: x.at(t), y1: TOP, y2: HEIGHT - BOTTOM }),
          svg("text", { x: x.at(t), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, Harness.amount(t, cost.kind)),
        ])
        .flat(),
      svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "name" }, cost.text),
      svg(
        "text",
        {
          transform: `translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`,
          "text-anchor": "middle",
          class: "name",
        },
        column.label,
      ),
    ];
  }

  function level(row, column, y, many, nth) {
    const at = y.at(row.entries[column.at].v);
    return svg(
      "g",
      {},
      svg("line", { class: "level", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
      svg(
        "text",
        {
          x: nth % 2 ? LEFT + 4 : WIDTH - RIGHT,
          y: at + (nth < 2 ? -5 : 15),
          "text-anchor": nth % 2 ? "start" : "end",
        },
        many ? `${row.label}, ${row.model}` : row.label,
      ),
    );
  }

  const steps = (best, x, y) =>
    best.map((p, i) => (i ? `H${x.at(p.x)}V${y.at(p.v)}` : `M${x.at(p.x)} ${y.at(p.v)}`)).join("");

  function spot(p, x, y, column, cost, models, on) {
    const at = models.indexOf(p.row.model),
      cx = x.at(p.x),
      cy = y.at(p.v);
    const score = `${Harness.number(p.v, column)} (${Harness.interval(p, column)})`;
    const words = `${p.row.model} ${p.row.label}: ${score}, ${Harness.amount(p.x, cost.kind)}`;
    return svg(
      "g",
      { class: `spot m${at % 6}${on ? " on" : ""}` },
      svg("title", {}, words),
      p.l === undefined ? null : svg("line", { x1: cx, x2: cx, y1: y.at(p.l), y2: y.at(p.h) }),
      Harness.shape(Harness.SHAPES[at % 4], cx, cy),
    );
  }

  // Names that would stand on one another are left to the tooltip.
  function labels(best, x, y) {
    const taken = [];
    return best
      .map((p) => {
        const text = p.row.label,
          wide = 7 * text.length,
          left = x.at(p.x) + wide + 12 > WIDTH - RIGHT;
        const box = { x: left ? x.at(p.x) - wide - 9 : x.at(p.x) + 9, y: y.at(p.v) - 8 };
        if (taken.some((t) => Math.abs(t.y - box.y) < 14 && box.x < t.x + t.wide && t.x < box.x + wide)) return null;
        taken.push({ ...box, wide });
        return svg(
          "text",
          {
            x: left ? x.at(p.x) - 9 : x.at(p.x) + 9,
            y: box.y + 4,
            "text-anchor": left ? "end" : "start",
            class: "point",
          },
          text,
        );
      })
      .filter(Boolean);
  }

  Harness.view("cost", { title: "Cost", filtered: true, show, update, wanted: () => Harness.data.costs.length > 0 });
})();
