// The overview and the suites: every row with its place, its scores or differences, and their intervals.
"use strict";

(() => {
  const { el } = Harness;
  const SIGNS = {
    better: ["▲", "better"],
    worse: ["▼", "worse"],
    undecided: ["≈", "undecided"],
    "one seed": ["◌", "one seed, so not a finding"],
    refused: ["–", "not comparable"],
  };
  Harness.SIGNS = SIGNS;
  let now = null; // the table on the page, and how it was made

  function show(place) {
    const delta = Boolean(place.at.get("delta"));
    const notes = Harness.notes();
    const suite = place.view === "suite" ? place.of : "";
    const shown = Harness.data.columns
      .map((column, at) => ({ ...column, at }))
      .filter((column) => (suite ? column.suite === suite : column.headline));
    const columns = [
      ...names(notes),
      ...standing(suite),
      ...shown.map((column) => scored(column, delta, notes)),
      ...(suite ? [] : costs()),
    ];
    const title = suite ? suite.replaceAll("_", " ") : "Overview";
    const table = Harness.table(
      columns,
      `${title}: ${delta ? `differences to ${Harness.data.baseline}` : "scores"}`,
      Harness.change,
    );
    const list = el("div", {});
    now = { table, notes, list, delta };
    const page = el("section", {}, el("h2", {}, title), lead(suite, shown, delta), table.node, list);
    update(place);
    return page;
  }

  function update(place) {
    if (Boolean(place.at.get("delta")) !== now.delta) {
      const main = document.getElementById("main");
      main.replaceChildren(show(place));
      return;
    }
    now.table.draw(Harness.rows(place.at), place.at);
    now.list.replaceChildren(now.notes.list());
  }

  function lead(suite, shown, delta) {
    const places = Harness.data.places[suite];
    const parts = [];
    if (delta) {
      parts.push(
        `Each number is the row minus ${Harness.data.baseline} of the same model, on the same items. `,
        "▲ better and ▼ worse are findings; ≈ is undecided; ◌ has one seed and is never a finding. ",
        "The thin line is zero. ",
      );
    } else {
      parts.push("The bar under a number is its 95 % interval, the notch its value, on one scale a column. ");
    }
    if (places?.places)
      parts.push("Tiers are among the methods of a model: rows of one tier cannot be told from its best. ");
    else if (places) parts.push(`No tiers: ${places.reason}. `);
    const whole = suite ? shown.filter((column) => column.parts.length) : [];
    for (const column of whole) parts.push(`${column.label} is the plain mean of ${column.parts.join(", ")}. `);
    return el("p", { class: "lead" }, parts);
  }

  function names(notes) {
    const models = new Set(Harness.data.rows.map((row) => row.model)).size > 1;
    const method = {
      key: "method",
      head: "method",
      text: true,
      value: (row) => row.label,
      cell: (row) => el("th", { scope: "row" }, row.label, notes.mark(row.notes)),
    };
    const model = {
      key: "model",
      head: "model",
      text: true,
      value: (row) => row.model,
      cell: (row) => el("td", { class: "text" }, row.model),
    };
    return models ? [method, model] : [method];
  }

  function standing(suite) {
    const places = Harness.data.places[suite]?.places;
    if (!places) return [];
    return [
      {
        key: "tier",
        head: "tier",
        small: "rank",
        title: "Rows of one tier cannot be told from its best",
        text: true,
        first: true,
        value: (row) => {
          const p = places[row.at];
          return p && p[0] * 1e6 + p[1] * 1e3 + p[2];
        },
        cell: (row) => {
          const p = places[row.at];
          if (!p) return el("td", { class: "place" }, row.level === "cell" ? "" : "–");
          const rank = p[1] === p[2] ? `rank ${p[1]}` : `rank ${p[1]} to ${p[2]}`;
          return el(
            "td",
            { class: "place" },
            el("b", { class: p[0] === 1 ? "top" : null }, p[0]),
            el("span", {}, rank),
          );
        },
      },
    ];
  }

  function scored(column, delta, notes) {
    const numbers = (row) => (delta && row.entries[column.at].d) || (delta ? null : row.entries[column.at]);
    const range = scale(delta, numbers);
    return {
      key: `c${column.at}`,
      head: column.label,
      small: column.parts.length ? `mean of ${column.parts.length}` : column.metric,
      title: column.items ? `${column.items} items` : null,
      mark: notes.mark(column.notes),
      first: column.headline,
      scored: true,
      value: (row) => numbers(row)?.v,
      cell: (row) => entry(row, column, delta, range, notes),
    };
  }

  // One scale a column, from the lowest to the highest end of any interval.
  function scale(delta, numbers) {
    const ends = Harness.data.rows
      .map(numbers)
      .filter((n) => n && n.v !== undefined)
      .flatMap((n) => [n.l ?? n.v, n.h ?? n.v, ...(delta ? [0] : [])]);
    const low = ends.reduce((a, b) => Math.min(a, b), Infinity);
    const high = ends.reduce((a, b) => Math.max(a, b), -Infinity);
    return (value) => (high > low ? (100 * (value - low)) / (high - low) : 50);
  }

  function entry(row, column, delta, range, notes) {
    const found = row.entries[column.at];
    const shown = delta ? found.d : found;
    if (delta && !shown && found.v !== undefined)
      return el("td", { class: "score" }, el("span", { class: "none" }, "baseline"));
    if (!shown || shown.v === undefined) {
      const why = delta && shown ? "not comparable" : found.state || "–";
      return el(
        "td",
        { class: "score" },
        el("span", { class: "none" }, why),
        notes.mark(shown?.reason !== undefined ? [shown.reason] : found.m),
      );
    }
    const [sign, words] = delta ? SIGNS[shown.verdict] : ["", ""];
    const text = Harness.number(shown.v, column, delta);
    const cell = el(
      "td",
      { class: `score ${delta ? shown.verdict.replace(" ", "-") : ""}` },
      delta ? el("span", { class: "sign", role: "img", "aria-label": words }, sign) : null,
      column.parts.length ? el("b", {}, text) : el("a", { href: opened(row, column) }, text),
      notes.mark(found.m),
      el("span", { class: "range" }, Harness.interval(shown, column)),
    );
    if (shown.l !== undefined && shown.h !== undefined) {
      cell.classList.add("bar");
      cell.style.setProperty("--l", `${range(shown.l)}%`);
      cell.style.setProperty("--h", `${range(shown.h)}%`);
      cell.style.setProperty("--v", String(range(shown.v)));
      if (delta) {
        cell.classList.add("zero");
        cell.style.setProperty("--z", String(range(0)));
      }
    }
    return cell;
  }

  // The samples behind a number, beside those of the baseline.
  function opened(row, column) {
    const base = Harness.data.rows.find(
      (other) => other.method === Harness.data.baseline && other.model === row.model,
    );
    const b = base && base !== row ? base.cells[0] : "";
    return Harness.address("samples", "", { task: column.at, a: row.cells[0], b });
  }

  function costs() {
    const wanted = ["train_seconds", "trainable_parameters"];
    return Harness.data.costs
      .map(([key, text, kind], at) => ({ key, text, kind, at: Harness.costAt(key) }))
      .filter((cost) => wanted.includes(cost.key))
      .map((cost) => Harness.costColumn(cost));
  }

  Harness.nameColumns = names;
  Harness.view("overview", { filtered: true, differs: true, show, update });
  Harness.view("suite", { filtered: true, differs: true, show, update });
})();
