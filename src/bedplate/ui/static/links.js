// Clients of MLflow print addresses of their own server's pages, all of them under "/#/": they lead to the same things here.
(() => {
  const kinds = [
    [/^experiments\/(\d+)(?:\/runs)?\/?$/, (experiment) => `/experiments/${experiment}`],
    [/^experiments\/\d+\/runs\/([\w-]+)(?:\/.*)?$/, (run) => `/runs/${run}`],
    [/^experiments\/\d+\/models\/([\w-]+)(?:\/.*)?$/, (model) => `/logged-models/${model}`],
    [/^experiments\/?$/, () => "/experiments"],
    [/^models\/?$/, () => "/models"],
    [/^models\/([^/]+)\/?$/, (name) => `/models/${name}`],
    [/^models\/([^/]+)\/versions\/(\d+)\/?$/, (name, version) => `/models/${name}/versions/${version}`],
  ];
  const follow = () => {
    if (!location.hash.startsWith("#/")) return;
    const [path, query = ""] = location.hash.slice(2).split("?", 2);
    const workspace = new URLSearchParams(query).get("workspace");
    for (const [shape, address] of kinds) {
      const found = shape.exec(path);
      if (!found) continue;
      const there = new URL(address(...found.slice(1)), location.origin);
      if (workspace) there.searchParams.set("workspace", workspace);
      location.replace(there.pathname + there.search);
      return;
    }
  };
  addEventListener("hashchange", follow);
  follow();
})();
