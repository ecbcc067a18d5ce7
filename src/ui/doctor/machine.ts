import { existsSync, readFileSync, rmSync } from "node:fs";
import { type AgentFacts, agentClient, agentFacts, agentSocket } from "../../client/agent.ts";
import { Fault } from "../../errors.ts";
import { VERSION } from "../../version.ts";
import { clipboardWay } from "../clipboard.ts";
import { completionInstalled, completionPlace, shellOf } from "../completionfiles.ts";
import { type Finding, fail, ok, type Patient, quoted, warn } from "./finding.ts";

/** Variables that act before any of our code, and those that are taken out of every process. */
const ACTING = /^(BUN_BE_BUN|BUN_OPTIONS|LD_PRELOAD|LD_AUDIT|DYLD_INSERT_LIBRARIES)$/i;
const IGNORED =
  /^(NODE_(OPTIONS|TLS_REJECT_UNAUTHORIZED|EXTRA_CA_CERTS|USE_SYSTEM_CA|USE_ENV_PROXY)|(HTTPS?|ALL)_PROXY|SSL_CERT_(FILE|DIR)|SSLKEYLOGFILE|BUN_(CONFIG_VERBOSE_FETCH|INSPECT.*))$/i;

/** What the environment asks of this program that it must not do. */
export function checkEnvironment({ ctx }: Patient): Finding[] {
  const check = "environment";
  const set = Object.entries(ctx.inherited).flatMap(([name, value]) => (value ? [name] : []));
  const acting = set.filter((name) => ACTING.test(name));
  const ignored = set.filter((name) => IGNORED.test(name));
  const findings: Finding[] = [];
  if (acting.length > 0) {
    const names = acting.join(", ");
    findings.push(
      fail(check, `${names} can run other code inside keyhold before it starts`, `unset ${acting.join(" ")}`),
    );
  }
  if (ignored.length > 0) {
    findings.push(
      warn(check, `${ignored.join(", ")} is set; keyhold does not use it`, "proxies and own authorities do not apply"),
    );
  }
  return findings.length > 0 ? findings : [ok(check, "nothing in it changes keyhold")];
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Whether memory could end up on a disk (Linux; elsewhere nothing is said). */
export function checkMemory(_: Patient): Finding[] {
  const limits = text("/proc/self/limits");
  if (limits === "") return [];
  const findings: Finding[] = [];
  const [, core = ""] = /^Max core file size\s+(\S+)/m.exec(limits) ?? [];
  findings.push(
    core === "0"
      ? ok("core dumps", "off in every process of keyhold")
      : warn("core dumps", "this process may be written to disk when it crashes", "ulimit -c 0"),
  );
  const swaps = text("/proc/swaps")
    .split("\n")
    .slice(1)
    .flatMap((line) => (line === "" ? [] : [line.split(/\s+/)[0] ?? ""]));
  const plainSwaps = swaps.filter((path) => !/^\/dev\/(zram|dm-|mapper\/)/.test(path));
  const [, locked = ""] = /^Max locked memory\s+(\S+)/m.exec(limits) ?? [];
  if (plainSwaps.length === 0) findings.push(ok("swap", swaps.length === 0 ? "off" : "in memory or encrypted"));
  else if (locked === "0") {
    findings.push(warn("swap", "keys may be written to unencrypted swap: no memory may be locked", "ulimit -l 1024"));
  } else {
    findings.push(warn("swap", "keys are kept out of it, values while they are shown are not", "encrypt the swap"));
  }
  return findings;
}

/** Where `get --copy` would put a value. */
export function checkClipboard({ ctx }: Patient): Finding[] {
  const check = "clipboard";
  const { env } = ctx;
  const way = clipboardWay(env);
  if (way === null) return [warn(check, "there is none to copy to", "install wl-clipboard or xclip")];
  if (way !== "tmux") return [ok(check, `by ${way}`)];
  const asked = Bun.spawnSync(["tmux", "show-options", "-gsv", "set-clipboard"], {
    env: { PATH: env["PATH"] ?? "", TMUX: env["TMUX"] ?? "" },
    stdin: "ignore",
    stderr: "ignore",
    timeout: 2_000,
  });
  if (asked.stdout.toString().trim() !== "off") return [ok(check, "by tmux, which passes it on to the terminal")];
  return [warn(check, "tmux keeps what is copied to itself", "tmux set-option -s set-clipboard on")];
}

/** Whether the user's shell completes keyhold's words. */
export function checkCompletion({ ctx }: Patient): Finding[] {
  const check = "completion";
  const shell = shellOf(ctx.env);
  if (shell === null) return [];
  if (completionInstalled(completionPlace(shell, ctx.env))) return [ok(check, `${shell} knows keyhold's commands`)];
  return [warn(check, `${shell} does not know keyhold's commands`, "keyhold completion install")];
}

/** Whether an agent runs, of this version, and what it knows of pending work. */
export async function checkAgent({ ctx, profile, nowMs }: Patient): Promise<Finding[]> {
  if (!profile) return [];
  const check = "agent";
  const socket = agentSocket(ctx.dirs.runtime, profile.name);
  let facts: AgentFacts | undefined;
  try {
    facts = await agentFacts(socket);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return [fail(check, error.message, error.hint ?? "end its process, then keyhold unlock")];
  }
  if (facts === undefined) {
    if (!existsSync(socket)) return [ok(check, "none runs: commands ask for the password")];
    const gone = () => rmSync(socket, { force: true });
    return [warn(check, "its socket is left over from one that ended", `rm ${quoted(socket)}   (or --fix)`, gone)];
  }
  const minutes = Math.max(0, Math.round((Date.parse(facts.locksAt) - nowMs) / 60_000));
  const findings = [ok(check, `runs, and locks in ${minutes} min`)];
  if (facts.version !== VERSION) {
    findings.push(warn(check, `it is keyhold ${facts.version}, this is ${VERSION}`, "keyhold unlock"));
  }
  try {
    const { sync } = await agentClient(socket, () => undefined).status();
    if (sync && sync.queued > 0) {
      const what = sync.queued === 1 ? "1 change waits" : `${sync.queued} changes wait`;
      findings.push(warn("sync", `${what} for the server`, "keyhold sync"));
    } else if (sync?.pending) findings.push(warn("sync", "a change waits for the server", "keyhold sync"));
    else if (sync && sync.conflicts.length > 0) {
      const [first] = sync.conflicts;
      findings.push(
        warn("sync", `${sync.conflicts.length} conflicts are unsolved`, `keyhold history ${quoted(first?.name ?? "")}`),
      );
    } else if (sync) findings.push(ok("sync", `revision ${sync.revision}, ${sync.syncedAt ?? "never"}`));
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    findings.push(fail("sync", error.message, error.hint ?? "keyhold sync"));
  }
  return findings;
}
