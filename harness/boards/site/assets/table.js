// A table that sorts and stays quick with many rows: the first are drawn at once, the others when nothing else happens.
"use strict";

(() => {
  const { el } = Harness;
  const AT_ONCE = 40;
  const A_TIME = 25; // rows a turn, so that no turn holds up a key or a click for long

  const later = window.requestIdleCallback
    ? (work) => requestIdleCallback(work, { timeout: 200 })
    : (work) => setTimeout(work, 10);
  let unfinished = null; // draws what is left of the table on the page; printing must not wait for it
  addEventListener("beforeprint", () => unfinished?.());

  // columns: [{key, head, note, title, cell(row) -> td or th, value(row), text}], made once a view.
  // Returns {node, draw(rows, at)}: draw filters, sorts and fills; rows drawn before are used again.
  Harness.table = (columns, caption, onsort) => {
    const drawn = new Map();
    const heads = columns.map((column) => head(column, onsort));
    const body = el("tbody");
    const node = el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, heads)), body),
    );
    let turn = 0;

    function line(row) {
      if (!drawn.has(row))
        drawn.set(
          row,
          el(
            "tr",
            { class: row.level },
            columns.map((column) => column.cell(row)),
          ),
        );
      return drawn.get(row);
    }

    function draw(rows, at) {
      const chosen =
        columns.find((column) => column.key === at.get("sort")) || columns.find((column) => column.first);
      const up = at.get("sort") ? Boolean(at.get("up")) : Boolean(chosen?.text);
      heads.forEach((cell, place) => {
        const on = columns[place] === chosen;
        if (on) cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        else cell.removeAttribute("aria-sort");
      });
      const sorted = chosen ? sort(rows, chosen, up) : rows;
      const mine = (turn += 1);
      let next = Math.min(AT_ONCE, sorted.length);
      body.replaceChildren(...sorted.slice(0, next).map(line));
      const more = (upTo) => {
        if (mine !== turn || next >= sorted.length) return;
        body.append(...sorted.slice(next, upTo).map(line));
        next = upTo;
      };
      const go = () => {
        more(next + A_TIME);
        if (mine === turn && next < sorted.length && node.isConnected) later(go);
      };
      unfinished = () => more(sorted.length);
      if (next < sorted.length) later(go);
      if (!sorted.length)
        body.append(el("tr", {}, el("td", { colspan: columns.length }, "No row matches these filters.")));
    }
    return { node, draw };
  };

  function head(column, onsort) {
    const sorted = () => {
      const place = Harness.place().at;
      const again = place.get("sort") === column.key;
      const up = again ? !place.get("up") : Boolean(column.text);
      onsort({ sort: column.key, up: up ? "1" : "" });
      Harness.say(`sorted by ${column.head}, ${up ? "ascending" : "descending"}`);
    };
    return el(
      "th",
      { scope: "col", class: column.text ? "text" : column.scored ? "score" : "number" },
      el(
        "button",
        { type: "button", onclick: sorted, title: column.title },
        el("span", {}, column.head),
        column.mark,
        column.small ? el("small", {}, column.small) : null,
      ),
    );
  }

  // What has no value stands last whichever way the rest is sorted. Seeds stay under their method.
  function sort(rows, column, up) {
    const value = new Map(rows.map((row) => [row.above, column.value(row.above)]));
    const empty = (row) => value.get(row) === null || value.get(row) === undefined;
    return [...rows].sort((one, two) => {
      const [m, n] = [one.above, two.above];
      if (m === n) return one.at - two.at;
      if (empty(m) || empty(n)) return empty(m) - empty(n) || m.at - n.at;
      const [a, b] = [value.get(m), value.get(n)];
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return (up ? order : -order) || m.at - n.at;
    });
  }
})();
