import { createHmac, randomBytes } from "node:crypto";
import { openSync } from "node:fs";
import { equalBytes, fromBase64url, toBase64url, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { closeQuietly, selfCommand, writeAll } from "./process.ts";
import { decodeText } from "./text.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** A program that owns a clipboard. `read` is null where it cannot be read back. */
interface Tool {
  readonly name: string;
  readonly usable: (env: Env, platform: NodeJS.Platform) => boolean;
  readonly write: readonly string[];
  readonly read: readonly string[] | null;
  readonly clear: readonly string[];
  /** The program takes UTF-16LE. */
  readonly utf16?: boolean;
}

const overSsh = (env: Env) => Boolean(env["SSH_CONNECTION"] || env["SSH_TTY"]);
const isWindows = (env: Env, platform: NodeJS.Platform) =>
  platform === "win32" || Boolean(env["WSL_DISTRO_NAME"] || env["WSL_INTEROP"]);

const TOOLS: readonly Tool[] = [
  {
    name: "wl-copy",
    usable: (env) => Boolean(env["WAYLAND_DISPLAY"]),
    write: ["wl-copy", "--type", "text/plain"],
    read: ["wl-paste", "--no-newline"],
    clear: ["wl-copy", "--clear"],
  },
  {
    name: "xclip",
    usable: (env) => Boolean(env["DISPLAY"]),
    write: ["xclip", "-selection", "clipboard"],
    read: ["xclip", "-selection", "clipboard", "-o"],
    clear: ["xclip", "-selection", "clipboard"],
  },
  {
    name: "xsel",
    usable: (env) => Boolean(env["DISPLAY"]),
    write: ["xsel", "--clipboard", "--input"],
    read: ["xsel", "--clipboard", "--output"],
    clear: ["xsel", "--clipboard", "--clear"],
  },
  {
    name: "pbcopy",
    usable: (env, platform) => platform === "darwin" && !overSsh(env),
    write: ["pbcopy"],
    read: ["pbpaste"],
    clear: ["pbcopy"],
  },
  {
    name: "clip.exe",
    usable: (env, platform) => isWindows(env, platform) && !overSsh(env),
    write: ["clip.exe"],
    read: [
      "powershell.exe",
      "-NoProfile",
      "-Command",
      "[Console]::OutputEncoding=[Text.Encoding]::UTF8; Get-Clipboard -Raw",
    ],
    clear: ["clip.exe"],
    utf16: true,
  },
];

/** All that a helper needs to reach the same clipboard; nothing else of the environment goes along. */
const TOOL_VARIABLES = [
  "PATH",
  "HOME",
  "DISPLAY",
  "WAYLAND_DISPLAY",
  "XAUTHORITY",
  "XDG_RUNTIME_DIR",
  "TMUX",
  "TMUX_TMPDIR",
  "TMPDIR",
  "WSL_DISTRO_NAME",
  "WSL_INTEROP",
  "SYSTEMROOT",
  "LANG",
  "LC_ALL",
] as const;

const TOOL_TIMEOUT_MS = 5_000;

export interface ClipboardInput {
  /** Text as UTF-8, not retained. */
  readonly value: Uint8Array;
  /** Milliseconds until it is cleared if unchanged; 0: never. */
  readonly clearAfterMs: number;
  readonly env: Env;
  readonly platform?: NodeJS.Platform;
  /** The terminal device. */
  readonly device?: string;
}

/** What became of a copy. */
export interface Copied {
  /** The program used, `tmux`, or `osc52`. */
  readonly via: string;
  /** False where nobody acknowledges: the value was sent to the terminal. */
  readonly confirmed: boolean;
  /** Milliseconds until it is cleared, or null if it will not be. */
  readonly clearsAfterMs: number | null;
  /** One line for people. */
  readonly message: string;
}

/**
 * Puts a value on the clipboard by the first way that works: wl-copy, xclip, xsel, pbcopy, clip.exe, tmux, OSC 52
 * to the terminal. It goes through stdin, never argv.
 *
 * @throws Fault unavailable if there is no way.
 */
export async function copyToClipboard(input: ClipboardInput): Promise<Copied> {
  const { value, clearAfterMs, env } = input;
  const platform = input.platform ?? process.platform;
  for (const tool of TOOLS) {
    if (!tool.usable(env, platform) || !(await feed(tool, tool.write, value, env))) continue;
    const armed = clearAfterMs > 0 && tool.read !== null && (await armClearing(tool, value, clearAfterMs, env));
    const after = armed
      ? `; it is cleared after ${Math.ceil(clearAfterMs / 1_000)} s if unchanged`
      : clearAfterMs > 0
        ? "; it could not be arranged that it is cleared"
        : "";
    return {
      via: tool.name,
      confirmed: true,
      clearsAfterMs: armed ? clearAfterMs : null,
      message: `copied to the clipboard${after}`,
    };
  }
  const sent = {
    confirmed: false,
    clearsAfterMs: null,
    message: "sent to the terminal, which may have put it on its clipboard; it cannot be cleared from here",
  };
  if (env["TMUX"] && (await throughTmux(value, env))) return { via: "tmux", ...sent };
  if (throughTerminal(value, env, input.device ?? "/dev/tty")) return { via: "osc52", ...sent };
  throw new Fault("unavailable", "there is no clipboard to copy to", {
    why: "no wl-copy, xclip, xsel, pbcopy, clip.exe, tmux or terminal answers",
    hint: "install xclip or wl-clipboard, or use keyhold read",
  });
}

/**
 * The first way to a clipboard that there is, or null; nothing is copied.
 *
 * @param device Where it is given, a terminal counts only if this opens.
 */
export function clipboardWay(
  env: Env,
  platform: NodeJS.Platform = process.platform,
  device: string | null = null,
): string | null {
  const path = { PATH: env["PATH"] ?? "" };
  const tool = TOOLS.find(({ usable, write: [name = ""] }) => usable(env, platform) && Bun.which(name, path) !== null);
  if (tool) return tool.name;
  if (env["TMUX"] && Bun.which("tmux", path) !== null) return "tmux";
  if (!env["TERM"] || env["TERM"] === "dumb") return null;
  return device === null || opens(device) ? "the terminal itself (OSC 52)" : null;
}

function opens(device: string): boolean {
  try {
    closeQuietly(openSync(device, "w"));
    return true;
  } catch {
    return false;
  }
}

function toolEnvironment(env: Env): Record<string, string> {
  return Object.fromEntries(TOOL_VARIABLES.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])));
}

/** Runs a tool with `value` on stdin; true if it exits 0 in time. The tools stay behind as owners, detached. */
async function feed(
  tool: Pick<Tool, "utf16">,
  command: readonly string[],
  value: Uint8Array,
  env: Env,
): Promise<boolean> {
  const [name = "", ...args] = command;
  const file = Bun.which(name, { PATH: env["PATH"] ?? "" });
  if (file === null) return false;
  const isAscii = value.every((byte) => byte < 0x80);
  const input = tool.utf16 === true && !isAscii ? Buffer.from(`\ufeff${decodeText(value)}`, "utf16le") : value;
  const child = Bun.spawn([file, ...args], {
    stdin: input,
    stdout: "ignore",
    stderr: "ignore",
    env: toolEnvironment(env),
    timeout: TOOL_TIMEOUT_MS,
  });
  return (await child.exited) === 0;
}

async function readBack(tool: Tool, env: Env): Promise<Uint8Array | null> {
  const [name = "", ...args] = tool.read ?? [];
  const file = Bun.which(name, { PATH: env["PATH"] ?? "" });
  if (file === null) return null;
  const child = Bun.spawn([file, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env: toolEnvironment(env),
    timeout: TOOL_TIMEOUT_MS,
  });
  const bytes = await child.stdout.bytes();
  return (await child.exited) === 0 ? bytes : null;
}

/** Loads a buffer that tmux forwards to the terminal, then deletes it: tmux drops a bare OSC 52. */
async function throughTmux(value: Uint8Array, env: Env): Promise<boolean> {
  const buffer = `keyhold-${randomBytes(8).toString("hex")}`;
  const loaded = await feed({}, ["tmux", "load-buffer", "-w", "-b", buffer, "-"], value, env);
  await feed({}, ["tmux", "delete-buffer", "-b", buffer], new Uint8Array(), env);
  return loaded;
}

/** Writes OSC 52; screen passes it on only when wrapped. There is no acknowledgement. */
function throughTerminal(value: Uint8Array, env: Env, device: string): boolean {
  if (env["TERM"] === "dumb") return false;
  let fd: number;
  try {
    fd = openSync(device, "w");
  } catch {
    return false;
  }
  try {
    const sequence = `\u001b]52;c;${value.toBase64()}\u0007`;
    writeAll(
      fd,
      new TextEncoder().encode(
        env["TERM"]?.startsWith("screen") === true && !env["TMUX"] ? `\u001bP${sequence}\u001b\\` : sequence,
      ),
    );
    return true;
  } catch {
    return false;
  } finally {
    closeQuietly(fd);
  }
}

/** What the helper is told on its stdin: no value, only a keyed hash of it. */
interface ClearOrder {
  readonly via: string;
  readonly afterMs: number;
  readonly keyB64: string;
  readonly hashB64: string;
}

const keyedHash = (key: Uint8Array, value: Uint8Array) => createHmac("sha256", key).update(value).digest();

/** Starts a helper of its own session that clears the clipboard later; true once it has its order. */
async function armClearing(tool: Tool, value: Uint8Array, afterMs: number, env: Env): Promise<boolean> {
  const key = randomBytes(32);
  const order: ClearOrder = {
    via: tool.name,
    afterMs,
    keyB64: toBase64url(key),
    hashB64: toBase64url(keyedHash(key, value)),
  };
  try {
    const child = Bun.spawn(selfCommand("__clear-clipboard"), {
      stdin: new TextEncoder().encode(JSON.stringify(order)),
      stdout: "pipe",
      stderr: "ignore",
      env: toolEnvironment(env),
      cwd: "/",
      detached: true,
    });
    const reader = child.stdout.getReader();
    const { value: first } = await reader.read();
    await reader.cancel();
    child.unref();
    return first !== undefined;
  } catch {
    return false;
  } finally {
    wipe(key);
  }
}

/**
 * The helper's entry point: reads its order from stdin, says "ok", waits, and clears the clipboard if it still holds
 * the same value.
 */
export async function clearClipboardLater(): Promise<number> {
  const order = readOrder(await Bun.stdin.text());
  const tool = TOOLS.find(({ name }) => name === order?.via);
  if (order === null || tool === undefined) return 2;
  writeAll(1, new TextEncoder().encode("ok\n"));
  closeQuietly(1);
  await Bun.sleep(order.afterMs);
  const now = await readBack(tool, process.env);
  if (now === null) return 1;
  const key = fromBase64url(order.keyB64);
  const expected = fromBase64url(order.hashB64);
  // PowerShell ends what it prints with a line break.
  const bare = now.subarray(0, now.at(-1) !== 0x0a ? undefined : now.at(-2) === 0x0d ? -2 : -1);
  const same = [now, bare].some((text) => equalBytes(keyedHash(key, text), expected));
  wipe(now);
  if (same) await feed({}, tool.clear, new Uint8Array(), process.env);
  return 0;
}

function readOrder(text: string): ClearOrder | null {
  try {
    const order: unknown = JSON.parse(text);
    if (typeof order !== "object" || order === null) return null;
    const { via, afterMs, keyB64, hashB64 } = order as Partial<Record<keyof ClearOrder, unknown>>;
    if (
      typeof via !== "string" ||
      typeof afterMs !== "number" ||
      typeof keyB64 !== "string" ||
      typeof hashB64 !== "string"
    )
      return null;
    return { via, afterMs, keyB64, hashB64 };
  } catch {
    return null;
  }
}
