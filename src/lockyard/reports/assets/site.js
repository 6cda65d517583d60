"use strict";
// Search and comparison over LOCKYARD_CATALOG. Names are untrusted: text only ever becomes text nodes.
(function () {
  var data = window.LOCKYARD_CATALOG, releases = data.releases, types = data.types, packages = data.packages;
  var names = Object.keys(packages), found = document.getElementById("found"), LIMIT = 60;

  function element(tag, attributes, children) {
    var node = document.createElement(tag);
    for (var key in attributes || {}) { node.setAttribute(key, attributes[key]); }
    [].concat(children === undefined ? [] : children).forEach(function (child) {
      node.append(child);
    });
    return node;
  }
  function table(label, header, rows) {
    var head = element("tr", {}, header.map(function (text) {
      return element("th", text === "Size" ? { scope: "col", class: "num" } : { scope: "col" }, text);
    }));
    var body = rows.map(function (cells) {
      return element("tr", {}, cells.map(function (cell, at) {
        var number = header[at] === "Size" ? { class: "num" } : {};
        return element(at ? "td" : "th", at ? number : { scope: "row" }, cell);
      }));
    });
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
      element("table", {}, [element("caption", {}, label), element("thead", {}, head), element("tbody", {}, body)]));
  }
  function link(at) { return element("a", { href: "releases/" + releases[at] + ".html" }, releases[at]); }
  function size(bytes) {
    var units = ["B", "kB", "MB", "GB"], at = 0, value = Math.abs(bytes);
    while (value >= 1000 && at < 3) { value /= 1000; at += 1; }
    return (at ? value.toPrecision(3) : value) + " " + units[at];
  }

  function fragment() {
    try { return decodeURIComponent(location.hash); } catch (error) { return location.hash; }
  }

  // Versions in conda's order, near enough to tell up from down: numbers by value, words before numbers.
  function parts(version) {
    var halves = version.toLowerCase().split("!"), text = halves.pop();
    return [halves.length ? +halves[0] : 0].concat((text.match(/\d+|[a-z]+/g) || []).map(function (part) {
      return /^\d/.test(part) ? +part : part;
    }));
  }
  function order(left, right) {
    var a = parts(left), b = parts(right), i, x, y;
    for (i = 0; i < Math.max(a.length, b.length); i += 1) {
      x = i < a.length ? a[i] : 0;
      y = i < b.length ? b[i] : 0;
      if (x === y) { continue; }
      if (typeof x === typeof y) { return x < y ? -1 : 1; }
      if (x === "post" || y === "post") { return x === "post" ? 1 : -1; }
      // 1.1.1a after 1.1.1, 1.0rc1 before 1.0: a single letter is a patch level, a word a pre-release.
      return typeof x === "string" ? (x.length === 1 && !(i + 1 < a.length) ? 1 : -1)
        : (y.length === 1 && !(i + 1 < b.length) ? -1 : 1);
    }
    return 0;
  }
  function kind(left, right) {
    if (order(right, left) < 0) { return "downgrade"; }
    var a = parts(left), b = parts(right);
    if (a[0] !== b[0] || a[1] !== b[1]) { return "major"; }
    return (typeof a[2] === "number" ? a[2] : 0) !== (typeof b[2] === "number" ? b[2] : 0) ? "minor" : "patch";
  }

  // A build's number in a release, -1 where the package is not in it.
  function at(runs, release) {
    for (var i = 0; i < runs.length; i += 3) {
      if (runs[i + 1] <= release && release < runs[i + 1] + runs[i + 2]) { return runs[i]; }
    }
    return -1;
  }
  function isDirect(entry, type, release) {
    var runs = entry[2][type] || [];
    for (var i = 0; i < runs.length; i += 2) {
      if (runs[i] <= release && release < runs[i] + runs[i + 1]) { return true; }
    }
    return false;
  }

  function fits(version, wanted) {
    return version === wanted || (version.startsWith(wanted) && !/^\d/.test(version.slice(wanted.length)));
  }
  function spans(numbers) {
    var nodes = [], first = 0;
    numbers.forEach(function (number, i) {
      if (numbers[i + 1] === number + 1) { return; }
      if (nodes.length) { nodes.push(", "); }
      nodes.push(link(numbers[first]));
      if (i > first) { nodes.push(" – ", link(number)); }
      first = i + 1;
    });
    return nodes;
  }
  function rowsOf(name, wanted) {
    var versions = new Map();
    packages[name][1].forEach(function (runs, type) {
      for (var i = 0; i < runs.length; i += 3) {
        var version = packages[name][0][runs[i]][0];
        if (wanted && !fits(version, wanted)) { continue; }
        if (!versions.has(version)) { versions.set(version, types.map(function () { return new Set(); })); }
        for (var n = 0; n < runs[i + 2]; n += 1) { versions.get(version)[type].add(runs[i + 1] + n); }
      }
    });
    return Array.from(versions).sort(function (a, b) { return order(b[0], a[0]); }).map(function (item) {
      var all = new Set(), having = [];
      item[1].forEach(function (set, type) {
        if (set.size) { having.push(types[type]); }
        set.forEach(function (number) { all.add(number); });
      });
      return [name, item[0], spans(Array.from(all).sort(function (a, b) { return a - b; })), having.join(", ")];
    });
  }
  function search(text) {
    var words = text.trim().toLowerCase().split(/[\s=]+/).filter(Boolean), name = words[0] || "", wanted = words[1] || "";
    document.getElementById("matrix").hidden = Boolean(name);
    found.replaceChildren();
    if (!name) { return; }
    var matching = names.filter(function (item) { return item.includes(name); }).sort(function (a, b) {
      return (b === name) - (a === name) || b.startsWith(name) - a.startsWith(name) || (a < b ? -1 : 1);
    });
    if (wanted && matching[0] === name) { matching = [name]; }
    var rows = [], shown = 0;
    for (; shown < matching.length && rows.length < LIMIT; shown += 1) {
      rows = rows.concat(rowsOf(matching[shown], wanted));
    }
    if (!rows.length) {
      found.append(element("p", { class: "note" }, "No release has " + text.trim() + "."));
      return;
    }
    var label = rows.length + (rows.length === 1 ? " version" : " versions");
    found.append(table(label, ["Package", "Version", "Releases", "Types"], rows.slice(0, 4 * LIMIT)));
    if (shown < matching.length) {
      found.append(element("p", { class: "note" }, (matching.length - shown) + " more packages match; write more of the name."));
    }
  }

  function changes(from, to, type) {
    var result = { direct: [], indirect: [], counts: { changed: 0, added: 0, removed: 0, rebuilt: 0 } };
    names.forEach(function (name) {
      var entry = packages[name], runs = entry[1][type], a = at(runs, from), b = at(runs, to);
      if (a === b) { return; }
      var old = entry[0][a], now = entry[0][b], what, word, text;
      if (!old) { what = "added"; word = "new"; text = now[0]; }
      else if (!now) { what = word = "removed"; text = old[0]; }
      else if (old[0] === now[0]) { what = "rebuilt"; word = "build"; text = now[0] + " " + old[1] + " → " + now[1]; }
      else { what = "changed"; word = kind(old[0], now[0]); text = old[0] + " → " + now[0]; }
      result.counts[what] += 1;
      var grown = old && old[2] === null || now && now[2] === null ? "" : (now ? now[2] : 0) - (old ? old[2] : 0);
      var bytes = grown === "" ? "" : (grown > 0 ? "+" : grown < 0 ? "-" : "±") + size(grown);
      var tag = element("span", { class: "tag " + (what === "added" ? "added" : word) }, word);
      (isDirect(entry, type, now ? to : from) ? result.direct : result.indirect)
        .push({ rank: ["changed", "added", "removed", "rebuilt"].indexOf(what), row: [name, text, tag, bytes] });
    });
    return result;
  }
  function compare() {
    var from = +document.getElementById("from").value, to = +document.getElementById("to").value;
    var type = +document.getElementById("type").value, result = changes(from, to, type);
    history.replaceState(null, "", "#" + releases[from] + ".." + releases[to] + (type ? ":" + types[type] : ""));
    found.replaceChildren();
    var counts = Object.keys(result.counts).filter(function (key) { return result.counts[key]; }).map(function (key) {
      return result.counts[key] + " " + key;
    });
    found.append(element("p", { id: "summary" }, [link(from), " → ", link(to), ", " + types[type] + ": " + (counts.join(", ") || "nothing changed")]));
    [["Packages that were asked for", result.direct], ["Packages that others require", result.indirect]].forEach(function (part) {
      if (!part[1].length) { return; }
      var rows = part[1].sort(function (a, b) { return a.rank - b.rank; }).map(function (item) { return item.row; });
      found.append(element("h2", {}, part[0]), table(rows.length + (rows.length === 1 ? " change" : " changes"), ["Package", "Version", "Change", "Size"], rows));
    });
  }
  function fromHash() {
    var match = /^#([^:]+?)\.\.([^:]+)(?::(.*))?$/.exec(fragment());
    var last = releases.length - 1;
    return match ? [releases.indexOf(match[1]), releases.indexOf(match[2]), Math.max(0, types.indexOf(match[3]))] : [Math.max(0, last - 1), last, 0];
  }
  function choose(id, values, chosen) {
    var select = document.getElementById(id);
    values.forEach(function (item) { select.append(element("option", { value: item[0] }, item[1])); });
    select.value = chosen;
    select.addEventListener("change", compare);
    return select;
  }

  if (document.getElementById("from")) {
    var options = releases.map(function (name, number) { return [number, name]; }).reverse(), chosen = fromHash();
    choose("from", options, Math.max(0, chosen[0]));
    choose("to", options, Math.max(0, chosen[1]));
    choose("type", types.map(function (name, number) { return [number, name]; }), chosen[2]);
    document.getElementById("swap").addEventListener("click", function () {
      var from = document.getElementById("from"), to = document.getElementById("to"), kept = from.value;
      from.value = to.value;
      to.value = kept;
      compare();
    });
    addEventListener("hashchange", function () {
      var next = fromHash();
      ["from", "to", "type"].forEach(function (id, number) { document.getElementById(id).value = Math.max(0, next[number]); });
      compare();
    });
    compare();
  } else {
    var input = document.getElementById("q");
    var load = function () { input.value = fragment().slice(1); search(input.value); };
    input.form.addEventListener("submit", function (event) { event.preventDefault(); });
    input.addEventListener("input", function () {
      search(input.value);
      history.replaceState(null, "", input.value ? "#" + encodeURIComponent(input.value) : location.pathname);
    });
    addEventListener("hashchange", load);
    load();
  }
})();
