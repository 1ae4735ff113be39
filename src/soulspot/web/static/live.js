// Keeps the stream and the word at the top up to date. Everything works without it; it only saves loading the page anew.
"use strict";
(() => {
  const LONGEST = 200;
  const make = (html) => html;
  const policy = window.trustedTypes ? trustedTypes.createPolicy("soulspot", { createHTML: make }) : { createHTML: make };
  // The rows come from this server, which has escaped what was in the files.
  const parsed = (html) => new DOMParser().parseFromString(policy.createHTML(html), "text/html").body;

  const stream = document.getElementById("stream");
  const standing = document.getElementById("standing");
  const news = document.getElementById("news");
  const title = document.title;
  let unseen = 0;

  const numberOf = (row) => Number(row.dataset.sequence);

  function put(row) {
    const kind = stream.dataset.kind;
    const isWanted = kind === "all" || row.classList.contains("more") || (kind ? row.dataset.kind === kind : row.dataset.kind !== "other");
    if (!isWanted || (row.id && document.getElementById(row.id))) return false;
    const before = [...stream.children].find((each) => numberOf(each) < numberOf(row));
    if (!before && stream.children.length >= LONGEST) return false;
    row.classList.add("is-new");
    stream.insertBefore(row, before || null);
    return true;
  }

  function takeEntries(html) {
    const rows = [...parsed(html).children].reverse();
    const put_ = rows.filter((row) => put(document.importNode(row, true)));
    while (stream.children.length > LONGEST) {
      if (stream.lastElementChild.contains(document.activeElement)) break;
      stream.lastElementChild.remove();
    }
    if (!put_.length) return;
    document.querySelectorAll("main > .nothing").forEach((each) => each.remove());
    news.textContent = put_.length === 1 ? "1 new entry" : `${put_.length} new entries`;
    if (document.hidden) document.title = `(${(unseen += put_.length)}) ${title}`;
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { unseen = 0; document.title = title; }
  });

  // The whole token may stand behind the # of the address that `soulspot web --show-token` prints: no server is sent that.
  const token = document.getElementById("token");
  if (token && location.hash.length > 1) {
    token.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname);
  }

  if (!window.EventSource || !standing) return;
  let source;
  function connect() {
    const after = stream ? `?after=${stream.dataset.after}` : "";
    source = new EventSource(`/events${after}`);
    source.addEventListener("standing", (event) => {
      const focused = standing.contains(document.activeElement);
      standing.replaceChildren(...parsed(event.data).childNodes);
      if (focused) standing.querySelector("a").focus();
    });
    if (stream) source.addEventListener("entries", (event) => {
      stream.dataset.after = event.lastEventId;
      takeEntries(event.data);
    });
  }
  // A page that nobody looks at holds no connection; what happened meanwhile comes when it is looked at again.
  window.addEventListener("pagehide", () => source && source.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  connect();
})();
