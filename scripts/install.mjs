// Puts the exact Bun of package.json and the packages of bun.lock under node_modules, with nothing but Node and npm.
// Plain JavaScript: Node 20 runs it before anything is installed. Quick when all is there already.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, "node_modules");
const bootstrap = join(modules, ".bootstrap");
const wanted = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies.bun;

function fail(message) {
  process.stderr.write(`install: ${message}\n`);
  process.exit(1);
}

function run(command, args, options) {
  const done = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"], cwd: root, ...options });
  if (done.error) fail(`cannot start ${command}: ${done.error.message}`);
  return done.status === 0;
}

/** The executable of the npm package `bun` under `folder`, if it is the wanted version. */
function bunUnder(folder) {
  const bun = join(folder, "bun", "bin", "bun.exe");
  if (!existsSync(bun)) return undefined;
  const asked = spawnSync(bun, ["--version"], { encoding: "utf8" });
  return asked.status === 0 && asked.stdout.trim() === wanted ? bun : undefined;
}

/** Runs the package's own set-up step by name, for npm and Bun may be configured to run no install scripts. */
function setUpBun(folder) {
  const step = join(folder, "bun", "install.js");
  if (existsSync(step)) run(process.execPath, [step], { cwd: join(folder, "bun") });
  return bunUnder(folder);
}

function fetchBun() {
  process.stderr.write(`install: fetching Bun ${wanted}\n`);
  rmSync(bootstrap, { recursive: true, force: true });
  mkdirSync(bootstrap, { recursive: true });
  writeFileSync(join(bootstrap, "package.json"), '{ "private": true }\n');
  const npm = process.env.npm_execpath;
  const [command, first] =
    npm && /npm-cli\.c?js$/.test(npm)
      ? [process.execPath, [npm]]
      : [process.platform === "win32" ? "npm.cmd" : "npm", []];
  const args = ["install", "--prefix", bootstrap, "--no-save", "--no-package-lock", "--ignore-scripts"];
  const quiet = ["--include=optional", "--no-audit", "--no-fund", "--loglevel=error"];
  if (!run(command, [...first, ...args, ...quiet, `bun@${wanted}`], { cwd: bootstrap })) {
    fail(`npm could not fetch bun@${wanted}`);
  }
  const folder = join(bootstrap, "node_modules");
  return bunUnder(folder) ?? setUpBun(folder) ?? fail(`bun@${wanted} does not run on this machine`);
}

if (Number(process.versions.node.split(".")[0]) < 20) fail(`Node ${process.versions.node} is too old: 20 or later`);
const bun = bunUnder(modules) ?? fetchBun();
const installed = run(bun, ["install", "--frozen-lockfile"]);
if (installed && !bunUnder(modules) && !setUpBun(modules)) fail(`bun@${wanted} does not run from node_modules`);
rmSync(bootstrap, { recursive: true, force: true });
if (!installed) fail("the packages of bun.lock could not be installed");
