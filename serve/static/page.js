// What HTML and htmx do not do: pictures that are dropped or pasted, keys, and where the focus goes.

const KEYS = "kinshelf-keys";
const TOUR = "kinshelf-tour";

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* private windows may refuse */ }
}

function remembered(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function setUpDrop(area) {
  const input = area.querySelector("input[type=file]");
  const preview = area.querySelector(".preview");
  const name = area.querySelector("[data-drop-name]");
  const clear = area.querySelector("[data-drop-clear]");
  const blank = name.textContent;

  function show() {
    if (preview.src) URL.revokeObjectURL(preview.src);
    const most = Number(input.dataset.most);
    if (input.files[0]?.size > most) {
      say(`${input.files[0].name} is larger than ${Math.floor(most / 1e6)} MB: choose a smaller picture.`);
      input.value = "";
    }
    const [file] = input.files;
    preview.hidden = clear.hidden = !file;
    name.textContent = file ? file.name : blank;
    if (file) preview.src = URL.createObjectURL(file);
    else preview.removeAttribute("src");
  }

  function take(files) {
    const picture = [...files].find((file) => file.type.startsWith("image/"));
    if (!picture) return false;
    const chosen = new DataTransfer();
    chosen.items.add(picture);
    input.files = chosen.files;
    area.closest("details")?.setAttribute("open", "");
    show();
    if (area.dataset.drop === "send") input.form.requestSubmit();
    return true;
  }

  input.addEventListener("change", show);
  clear.addEventListener("click", () => { input.value = ""; show(); input.focus(); });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) area.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (take(event.clipboardData.files)) event.preventDefault();
  });
}

// One key for one control: [data-key="1"] is clicked, or focused if it is a field.
function setUpKeys() {
  const toggle = document.querySelector("[data-keys]");
  if (toggle) {
    toggle.checked = remembered(KEYS) !== "off";
    toggle.addEventListener("change", () => remember(KEYS, toggle.checked ? "on" : "off"));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
    if (remembered(KEYS) === "off" || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const key = CSS.escape(event.key);
    const control = document.querySelector(`[data-key="${key}"], [data-also="${key}"]`);
    if (!control || control.disabled) return;
    event.preventDefault();
    if (control.matches("input")) control.focus();
    else control.click();
  });
}

// Products are marked one by one, a row of them with Shift, or all that match.
function setUpMany(form) {
  const boxes = [...form.querySelectorAll("input[name=id]")];
  const every = form.querySelector("input[name=all]");
  const counted = form.querySelector("[data-many-count]");
  const compare = form.querySelector("[data-compare-go]");
  const buttons = [...form.querySelectorAll("button[name=do]")];
  const total = Number(form.dataset.total).toLocaleString("en");
  let last = null;
  function count() {
    const marked = boxes.filter((box) => box.checked).length;
    for (const button of buttons) button.disabled = !marked && !every.checked;
    compare.disabled = every.checked || marked < 2 || marked > 4;
    compare.textContent = marked > 4 ? "Compare (two to four)" : "Compare";
    counted.textContent = every.checked ? `All ${total} are selected`
      : marked ? `${marked} selected` : "Select products, then:";
  }
  form.addEventListener("click", (event) => {
    const place = boxes.indexOf(event.target);
    if (place < 0) return;
    if (event.shiftKey && last !== null) {
      for (const box of boxes.slice(Math.min(place, last), Math.max(place, last) + 1)) box.checked = event.target.checked;
    }
    last = place;
    count();
  });
  form.addEventListener("change", count);
  count();
}

// The button of a sheet counts what is marked on it; forms that htmx brings have it too.
document.addEventListener("change", (event) => {
  const sheet = event.target.closest(".sheet");
  if (!sheet) return;
  const marked = sheet.querySelectorAll("input[name=id]:checked").length;
  const accept = sheet.querySelector("[data-accept]");
  accept.disabled = !marked;
  accept.textContent = marked === 1 ? "Accept this one" : `Accept these ${marked}`;
});

// Where the browser's own time is meant: UTC in the page, the reader's zone on the screen.
function setUpTimes() {
  for (const time of document.querySelectorAll("time[data-when]")) {
    const when = new Date(time.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    time.title = time.textContent;
    time.textContent = when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  }
}

// A picture at its full size, over the page; without scripts its link opens it.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-zoom]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const shown = document.createElement("dialog");
  shown.setAttribute("aria-label", "Picture");
  const alt = link.querySelector("img")?.alt ?? "";
  shown.append(Object.assign(document.createElement("img"), { src: link.href, alt }));
  shown.append(Object.assign(document.createElement("button"), { textContent: "Close", type: "button", className: "hidden" }));
  shown.addEventListener("click", () => shown.close());
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
});

// The tour is there until somebody closes it, and never again after that.
function setUpTour(tour) {
  tour.hidden = remembered(TOUR) === "closed";
  tour.querySelector("[data-tour-close]").addEventListener("click", () => {
    remember(TOUR, "closed");
    tour.hidden = true;
    document.getElementById("main").focus();
  });
}

// The sidebar stays where it was when one of its links is followed.
function setUpSidebar(side) {
  const kept = sessionStorage.getItem("kinshelf-filters");
  if (kept) side.scrollTop = Number(kept);
  addEventListener("pagehide", () => sessionStorage.setItem("kinshelf-filters", side.scrollTop));
}

function say(text) {
  const notice = document.createElement("div");
  notice.className = "notice bad";
  notice.append(Object.assign(document.createElement("p"), { textContent: text }));
  document.getElementById("status").replaceChildren(notice);
}

document.querySelectorAll("[data-drop]").forEach(setUpDrop);
document.querySelectorAll("[data-many]").forEach(setUpMany);
document.querySelectorAll(".facets").forEach(setUpSidebar);
document.querySelectorAll("[data-tour]").forEach(setUpTour);
setUpKeys();
setUpTimes();

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-dismiss]")) document.getElementById("status").replaceChildren();
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});
// What never reached a page's route, such as too many requests, is answered for programs.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (!xhr.getResponseHeader("content-type")?.startsWith("application/json")) return;
  event.detail.shouldSwap = false;
  say(JSON.parse(xhr.responseText).error.message);
});
document.addEventListener("htmx:sendError", () => say("The server cannot be reached. Is it still running?"));
document.addEventListener("htmx:timeout", () => say("The server took too long to answer."));

// What is new on the page gets the focus, so that a screen reader reads it and keys go on working.
let focused = document.querySelector("[data-focus]");
document.addEventListener("htmx:afterSettle", () => {
  const place = document.querySelector("[data-focus]");
  if (place && place !== focused) place.focus();
  focused = place;
  const shown = document.querySelector("[data-show]")?.parentElement;
  if (shown && shown.getBoundingClientRect().top > innerHeight * 0.6) shown.scrollIntoView();
});
