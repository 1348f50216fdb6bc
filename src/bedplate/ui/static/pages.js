// Small help for pages that work without it: choices that apply at once, names that are narrowed down, runs to compare.
(() => {
  for (const element of document.querySelectorAll("[data-without-script]")) element.hidden = true;
  for (const element of document.querySelectorAll("[data-with-script]")) element.hidden = false;

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });

  for (const input of document.querySelectorAll("[data-narrows]")) {
    const choices = [...document.getElementById(input.dataset.narrows).querySelectorAll(".choice")];
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const choice of choices) choice.hidden = !choice.textContent.toLowerCase().includes(wanted);
    });
  }

  for (const form of document.querySelectorAll("[data-compare]")) {
    const button = form.querySelector("[data-count]");
    const count = () => {
      const ticked = form.querySelectorAll("input[name=run]:checked").length;
      button.disabled = ticked < 2;
      button.textContent = ticked < 2 ? "Tick runs to compare them" : `Compare ${ticked} runs`;
    };
    form.addEventListener("change", count);
    count();
  }

  // Nobody looks: nothing is asked. Of running runs only those on the screen are shown anew; the others come along.
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:config:request", (event) => {
    if (event.target.id !== "live") return;
    const request = event.detail.ctx.request, address = new URL(request.action, location.href);
    const going = address.searchParams.getAll("run");
    address.searchParams.delete("run");
    for (const id of going) {
      const box = document.getElementById(`run-${id}`)?.getBoundingClientRect();
      address.searchParams.append(box && box.bottom > 0 && box.top < innerHeight ? "run" : "other", id);
    }
    if (!address.searchParams.has("run")) event.preventDefault();
    request.action = address.pathname + address.search;
  });
})();
