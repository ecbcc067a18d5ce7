import { readFileSync, readlinkSync } from "node:fs";
import type { AskOwner, ConfirmQuestion } from "../client/agentconfirm.ts";
import { Fault } from "../errors.ts";
import { plainEnvironment } from "../wire/environment.ts";
import { plain } from "./text.ts";

/** Variables by which a program finds the owner's screen and message bus. */
const DISPLAY = [
  "DISPLAY",
  "WAYLAND_DISPLAY",
  "XAUTHORITY",
  "DBUS_SESSION_BUS_ADDRESS",
  "XDG_SESSION_TYPE",
  "XDG_CURRENT_DESKTOP",
  "TMUX",
] as const;

type Display = readonly { readonly name: string; readonly value: string }[];

/** Those of them that are set and fit. */
export function checkDisplay(env: Readonly<Record<string, string | undefined>>): Display {
  return DISPLAY.flatMap((name) => {
    const value = env[name];
    return value && value.length <= 1_024 && value.isWellFormed() ? [{ name, value }] : [];
  });
}

/** How long the owner has to answer. */
const ANSWER_MS = 60_000;
/** Names that the program is shown; it is told how many there are. */
const NAMES_SHOWN = 32;

/**
 * Asks through a program: its exit status 0 is the owner's yes (docs/agent.md §7). It gets no value, no shell, and names
 * that nothing in them can act on a terminal.
 *
 * @param command Program and arguments.
 */
export function askByProgram(
  command: readonly string[],
  profile: string,
  display: Display,
  answerMs: number = ANSWER_MS,
): AskOwner {
  return async (question, signal) => {
    const child = start(command, {
      ...plainEnvironment(process.env),
      ...Object.fromEntries(display.map(({ name, value }) => [name, value])),
      ...described(question, profile),
    });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      endGroup(child.pid);
    }, answerMs);
    const withdraw = () => endGroup(child.pid);
    signal.addEventListener("abort", withdraw);
    if (signal.aborted) withdraw();
    try {
      const code = await child.exited;
      if (late) return "timed_out";
      return code === 0 ? "yes" : "no";
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", withdraw);
    }
  };
}

function start(command: readonly string[], env: Record<string, string>) {
  try {
    // a group of its own, to be ended with all that it started
    const detached = true;
    return Bun.spawn([...command], { env, cwd: "/", stdin: "ignore", stdout: "ignore", stderr: "ignore", detached });
  } catch {
    throw new Fault("denied", "this has to be confirmed, and the program that asks cannot be started", {
      hint: "mend the setting confirmCommand (docs/agent.md), then keyhold unlock",
    });
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // it has ended already
  }
}

function described({ method, names, pid }: ConfirmQuestion, profile: string): Record<string, string> {
  const shown = (names ?? []).slice(0, NAMES_SHOWN).map(plain);
  const parent = pid === null ? null : parentOf(pid);
  const [first] = shown;
  return {
    KEYHOLD_CONFIRM_METHOD: method,
    KEYHOLD_CONFIRM_PROFILE: plain(profile),
    KEYHOLD_CONFIRM_NAME:
      names === null
        ? "the whole account"
        : names.length === 1 && first !== undefined
          ? first
          : `${names.length} secrets`,
    KEYHOLD_CONFIRM_NAMES: shown.join("\n"),
    KEYHOLD_CONFIRM_COUNT: names === null ? "" : String(names.length),
    KEYHOLD_CONFIRM_PID: pid === null ? "" : String(pid),
    KEYHOLD_CONFIRM_EXE: executableOf(pid),
    KEYHOLD_CONFIRM_PARENT_PID: parent === null ? "" : String(parent),
    KEYHOLD_CONFIRM_PARENT_EXE: executableOf(parent),
  };
}

/** Path of a process's executable, or nothing where the system does not tell. */
function executableOf(pid: number | null): string {
  if (pid === null) return "";
  try {
    return plain(readlinkSync(`/proc/${pid}/exe`));
  } catch {
    return "";
  }
}

function parentOf(pid: number): number | null {
  try {
    const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return parent === undefined || parent === "0" ? null : Number(parent);
  } catch {
    return null;
  }
}
