import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

/** Where keyhold keeps things. Absolute paths; none of them need exist. */
export interface Directories {
  /** Settings and profiles. */
  readonly config: string;
  /** Vaults. */
  readonly data: string;
  /** What may be lost: pending writes, heads, logs. */
  readonly state: string;
  /** Sockets of the agent. */
  readonly runtime: string;
  /** The server's default directory. */
  readonly server: string;
}

/** The path that somebody answered: `~` is the home, as a shell would have it before it runs a command. */
export function answeredPath(text: string, home: string = process.env["HOME"] || homedir()): string {
  const path = text.trim();
  return path === "~" || /^~[/\\]/.test(path) ? join(home, path.slice(1)) : path;
}

/** Directories by KEYHOLD_HOME, else by the platform's custom: XDG, macOS, Windows (docs/cli.md §2). */
export function directories(
  env: Readonly<Record<string, string | undefined>>,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): Directories {
  const own = env["KEYHOLD_HOME"];
  if (own) {
    const base = resolve(own);
    return all((part) => join(base, part === "runtime" ? "run" : part), join(base, "server"));
  }
  if (platform === "win32") {
    const local = env["LOCALAPPDATA"] || join(home, "AppData", "Local");
    const roaming = env["APPDATA"] || join(home, "AppData", "Roaming");
    return all(
      (part) => (part === "config" ? join(roaming, "keyhold") : join(local, "keyhold", part)),
      join(local, "keyhold", "server"),
    );
  }
  if (platform === "darwin") {
    const support = join(home, "Library", "Application Support", "keyhold");
    return all((part) => join(support, part === "runtime" ? "run" : part), join(support, "server"));
  }
  const xdg = (name: string, fallback: string) => {
    const value = env[name];
    // The XDG specification: a relative path is invalid and ignored.
    return join(value && isAbsolute(value) ? value : join(home, fallback), "keyhold");
  };
  const state = xdg("XDG_STATE_HOME", ".local/state");
  const data = xdg("XDG_DATA_HOME", ".local/share");
  const runtime = env["XDG_RUNTIME_DIR"];
  return {
    config: xdg("XDG_CONFIG_HOME", ".config"),
    data,
    state,
    runtime: runtime && isAbsolute(runtime) ? join(runtime, "keyhold") : join(state, "run"),
    server: join(data, "server"),
  };
}

function all(place: (part: "config" | "data" | "state" | "runtime") => string, server: string): Directories {
  return { config: place("config"), data: place("data"), state: place("state"), runtime: place("runtime"), server };
}
