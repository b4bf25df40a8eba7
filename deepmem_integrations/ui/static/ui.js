"use strict";
// Every page works without this script. It keeps what goes on up to date, and sends small forms without leaving the page.

const parse = async (response) => new DOMParser().parseFromString(await response.text(), "text/html");

const tell = (message) => {
  const told = document.querySelector("#told");
  told.textContent = message;
  told.hidden = !message;
};

// Puts the part of a new page in the place of the old part, and the focus where it was.
const replace = (id, page) => {
  const [old, next] = [document.getElementById(id), page.getElementById(id)];
  if (!old || !next) return false;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const open = [...old.querySelectorAll("details[open]")].map((details) => [...old.querySelectorAll("details")].indexOf(details));
  old.replaceWith(document.adoptNode(next));
  if (focused) document.getElementById(focused)?.focus();
  if (id === "results") open.forEach((number) => next.querySelectorAll("details")[number]?.setAttribute("open", ""));
  return true;
};

addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  if (!form.dataset.part) return;
  event.preventDefault();
  try {
    const response = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, event.submitter)) });
    const page = await parse(response);
    tell(page.querySelector("#told")?.textContent ?? "");
    if (response.ok && !replace(form.dataset.part, page)) location.reload();
  } catch {
    tell("The application does not answer. Is it still running?");
  }
});

// What explains a page is fetched when somebody opens it.
addEventListener(
  "toggle",
  async (event) => {
    const details = event.target;
    if (!details.open || !details.dataset?.load) return;
    const address = details.dataset.load;
    delete details.dataset.load;
    const into = details.querySelector(".into");
    try {
      const page = await parse(await fetch(address));
      const part = page.querySelector("#why") ?? page.querySelector("#told");
      if (part) into.replaceChildren(document.adoptNode(part));
    } catch {
      tell("The application does not answer. Is it still running?");
    }
  },
  true,
);

const say = (live) => {
  const said = document.querySelector("#said");
  if (said.textContent !== live.dataset.say) said.textContent = live.dataset.say;
};

const watch = async () => {
  const live = document.querySelector("#live[data-live]");
  if (!live) return;
  if (document.hidden) {
    setTimeout(watch, 1000);
    return;
  }
  try {
    const response = await fetch(location.href);
    const page = await parse(response);
    const next = page.querySelector("#live");
    if (!response.ok || !next) {
      tell(page.querySelector("#told")?.textContent || "The application was started anew: open the address that it printed.");
      return;
    }
    if (document.querySelector("#told").dataset.away) tell("");
    if ("live" in next.dataset) {
      replace("live", page);
      say(document.querySelector("#live"));
    } else {
      const last = next.dataset.say; // what has ended changes the rest of the page as well
      for (const id of ["top", "main"]) replace(id, page);
      document.querySelector("#said").textContent = last;
    }
  } catch {
    tell("The application does not answer. Is it still running? Trainings go on without it.");
    document.querySelector("#told").dataset.away = "yes";
  }
  setTimeout(watch, 1000);
};
setTimeout(watch, 1000);
