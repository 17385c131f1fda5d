// The ground the views stand on: data, page state in the address, elements, numbers as people read them.
// Data reaches the page as text nodes and attribute values only; nothing here or elsewhere writes HTML.
"use strict";

const Harness = (() => {
  const views = new Map(); // name -> {title, show(place) -> element, filtered}
  const shards = new Map(); // file -> {promise, resolve}
  let data = null;

  function board(body) {
    data = body;
    Harness.data = body;
    Harness.start();
  }

  function view(name, what) {
    views.set(name, what);
  }

  // A sample file calls this when its script runs.
  function shard(name, body) {
    shards.get(name)?.resolve(body);
  }

  // A file opened from disk may not be fetched, but it may be a script.
  function load(name) {
    if (!shards.has(name)) {
      const waiting = {};
      waiting.promise = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        waiting.resolve = (body) => {
          script.remove();
          resolve(body);
        };
        script.src = `data/${name}.js`;
        script.onerror = () => {
          shards.delete(name);
          reject(new Error(`${script.src} cannot be read`));
        };
        document.head.append(script);
      });
      shards.set(name, waiting);
    }
    return shards.get(name).promise;
  }

  // el("td", {class: "n", onclick: f}, "text", child): strings become text nodes; null children are left out.
  function el(tag, attributes, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }

  function svg(tag, attributes, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  // The address holds the whole state of a page: "#/suite/math?q=lora&sort=2", so that it can be sent to somebody.
  function place() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const parts = path.split("/").filter(Boolean).map(safely);
    return { view: parts[0] || "overview", of: parts[1] || "", at: new URLSearchParams(query || "") };
  }

  function safely(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function address(view, of, at) {
    const query = new URLSearchParams(
      [...Object.entries(at || {})].filter(([, value]) => value !== "" && value !== null),
    );
    const path = [view, ...(of ? [encodeURIComponent(of)] : [])].join("/");
    return `#/${path}${query.size ? `?${query}` : ""}`;
  }

  const FILTERS = ["q", "model", "family", "seeds", "each", "delta"]; // these stay when the view changes

  function kept(at) {
    return Object.fromEntries(FILTERS.filter((name) => at.get(name)).map((name) => [name, at.get(name)]));
  }

  // Change a part of the state. Typing and sorting leave no trail of steps to go back through.
  function change(changes) {
    const now = place();
    const at = { ...Object.fromEntries(now.at), ...changes };
    history.replaceState(null, "", address(now.view, now.of, at));
    Harness.show();
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  const unit = (column) => (column.percent ? 100 : 1);

  function number(value, column, signed) {
    if (value === null || value === undefined) return "–";
    const shown = column.percent ? (100 * value).toFixed(1) : Number(value.toPrecision(4)).toString();
    const text = shown.replace(/^-0(\.0+)?$/, "0$1");
    return (signed && !text.startsWith("-") ? `+${text}` : text).replace("-", "−");
  }

  function interval(numbers, column) {
    if (numbers.l === undefined || numbers.h === undefined) return "no interval";
    return `${number(numbers.l, column)} to ${number(numbers.h, column)}`;
  }

  function scaled(value, units, step) {
    let at = 0;
    while (Math.abs(value) >= step && at < units.length - 1) {
      value /= step;
      at += 1;
    }
    return `${Number(value.toPrecision(3))}${units[at]}`;
  }

  function amount(value, kind) {
    if (value === null || value === undefined) return "–";
    if (kind === "bytes") return scaled(value, [" B", " kB", " MB", " GB", " TB"], 1000);
    if (kind === "count") return scaled(value, ["", "k", "M", "G", "T", "P", "E"], 1000);
    if (value < 120) return `${Number(value.toPrecision(3))} s`;
    return value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
  }

  return {
    board,
    view,
    views,
    shard,
    load,
    el,
    svg,
    place,
    address,
    kept,
    change,
    say,
    unit,
    number,
    interval,
    amount,
  };
})();
