// Keeps the stream and the health line up to date. The page works without it; it only saves a reload.
"use strict";
(() => {
  const MAX_ROWS = 200;
  const make = (html) => html;
  const policy = window.trustedTypes ? trustedTypes.createPolicy("soulspot", { createHTML: make }) : { createHTML: make };
  // The rows come from this server, which has escaped every value.
  const parse = (html) => new DOMParser().parseFromString(policy.createHTML(html), "text/html").body;

  const stream = document.getElementById("stream");
  const health = document.getElementById("health");
  const news = document.getElementById("news");
  const title = document.title;
  let unseen = 0;

  const sequenceOf = (row) => Number(row.dataset.sequence);

  function insert(row) {
    const kind = stream.dataset.kind;
    const isWanted = kind === "all" || row.classList.contains("more") || (kind ? row.dataset.kind === kind : row.dataset.kind !== "other");
    if (!isWanted || (row.id && document.getElementById(row.id))) return false;
    const before = [...stream.children].find((each) => sequenceOf(each) < sequenceOf(row));
    if (!before && stream.children.length >= MAX_ROWS) return false;
    row.classList.add("is-new");
    stream.insertBefore(row, before || null);
    return true;
  }

  function addEntries(html) {
    const rows = [...parse(html).children].reverse();
    const added = rows.filter((row) => insert(document.importNode(row, true)));
    while (stream.children.length > MAX_ROWS) {
      if (stream.lastElementChild.contains(document.activeElement)) break;
      stream.lastElementChild.remove();
    }
    if (!added.length) return;
    document.querySelectorAll("main > .nothing").forEach((each) => each.remove());
    news.textContent = added.length === 1 ? "1 new entry" : `${added.length} new entries`;
    if (document.hidden) document.title = `(${(unseen += added.length)}) ${title}`;
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { unseen = 0; document.title = title; }
  });

  // The address that `soulspot web --show-token` prints has the token after the #, which browsers send to no server.
  const token = document.getElementById("token");
  if (token && location.hash.length > 1) {
    token.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname);
  }

  if (!window.EventSource || !health) return;
  let source;
  function connect() {
    const after = stream ? `?after=${stream.dataset.after}` : "";
    source = new EventSource(`/events${after}`);
    source.addEventListener("health", (event) => {
      const focused = health.contains(document.activeElement);
      health.replaceChildren(...parse(event.data).childNodes);
      if (focused) health.querySelector("a").focus();
    });
    if (stream) source.addEventListener("entries", (event) => {
      stream.dataset.after = event.lastEventId;
      addEntries(event.data);
    });
  }
  // A page that is left holds no connection; it gets the missed entries when the user returns.
  window.addEventListener("pagehide", () => source && source.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  connect();
})();
