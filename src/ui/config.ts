import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { nearest } from "../protocol/nearest.ts";
import { parseDuration } from "./args.ts";
import { errnoOf } from "./process.ts";

interface Setting {
  readonly kind: "text" | "duration" | readonly string[];
  readonly default: string | number | null;
  readonly description: string;
}

/** Everything that can be set by flag, `KEYHOLD_*` or file (docs/cli.md §2). Durations are milliseconds inside. */
export const SETTINGS = {
  profile: { kind: "text", default: null, description: "profile to use" },
  store: { kind: ["server", "local", "both"], default: null, description: "where values are kept" },
  clearAfter: { kind: "duration", default: DEFAULTS.clipboardClearMs, description: "when the clipboard is cleared" },
  agentIdle: {
    kind: "duration",
    default: DEFAULTS.agentIdleMs,
    description: "idle time after which the agent locks; 0 for none",
  },
  agentFor: { kind: "duration", default: DEFAULTS.agentAbsoluteMs, description: "time after which the agent locks" },
  lockOnSuspend: {
    kind: ["true", "false"],
    default: "true",
    description: "whether the agent locks when the system slept",
  },
  confirm: {
    kind: "text",
    default: "never",
    description: "what the agent asks about: always, never, a pattern, or a JSON list of patterns",
  },
  confirmCommand: {
    kind: "text",
    default: null,
    description: "program that asks the owner, or a JSON list of program and arguments",
  },
  dir: { kind: "text", default: null, description: "directory of the server" },
  listen: { kind: "text", default: DEFAULTS.listen, description: "address of the server" },
  database: { kind: "text", default: null, description: "database of the server" },
  registration: { kind: ["open", "invite", "closed"], default: null, description: "who may register" },
  secondFactor: {
    kind: ["optional", "required"],
    default: "optional",
    description: "whether the server asks every account for a second factor",
  },
  metrics: { kind: "text", default: null, description: "address of the server's figures" },
  tlsCert: { kind: "text", default: null, description: "certificate file of the server" },
  tlsKey: { kind: "text", default: null, description: "private key file of the server" },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof SETTINGS;
type Widened<N extends SettingName> = (typeof SETTINGS)[N]["kind"] extends "duration"
  ? number
  : (typeof SETTINGS)[N]["kind"] extends readonly (infer O)[]
    ? O
    : string;
/** Type of a setting's value: null only where there is no default. */
export type SettingValue<N extends SettingName> = (typeof SETTINGS)[N]["default"] extends null
  ? Widened<N> | null
  : Widened<N>;

export interface Effective {
  readonly name: SettingName;
  readonly value: string | number | null;
  /** `flag`, the variable's name, the file's path or `default`. */
  readonly origin: string;
}

/** The settings of one run. */
export interface Settings {
  /** Files that were read, strongest first. */
  readonly files: readonly string[];
  /** The value of a setting; `flag` (not null) wins. */
  get<N extends SettingName>(name: N, flag?: string | number | null): SettingValue<N>;
  /** All of them with their origin. */
  effective(): readonly Effective[];
}

export interface SettingsSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** From `--config`: must exist. */
  readonly file: string | null;
  readonly userDirectory: string;
  /** The machine's file; tests name another. */
  readonly systemFile?: string;
  /** From flags that every command has. */
  readonly flags?: Readonly<Partial<Record<SettingName, string | null>>>;
}

const CHECK = "check its name and permissions   (keyhold config path)";
const FORM = 'write it like {"clearAfter": "45s"}   (keyhold help environment)';
const SYSTEM_FILE = "/etc/keyhold/config.json";

/** The variable that sets a setting: `clearAfter` → `KEYHOLD_CLEAR_AFTER`. */
export function variableOf(name: SettingName): string {
  return `KEYHOLD_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** The user's own configuration file. */
export function userFile(directory: string): string {
  return join(directory, "config.json");
}

/**
 * Reads all sources: flag › `KEYHOLD_*` › `--config FILE` › user's file › `/etc/keyhold/config.json` › default.
 *
 * @throws Fault bad_input for files and variables that are malformed; not_found if `--config` names no file.
 */
export function loadSettings(sources: SettingsSources): Settings {
  const { env, flags = {} } = sources;
  const layers: { origin: string; values: Partial<Record<SettingName, string | number>> }[] = [];
  const files: string[] = [];
  const paths = [
    ...(sources.file === null ? [] : [{ path: sources.file, required: true }]),
    { path: userFile(sources.userDirectory), required: false },
    { path: sources.systemFile ?? SYSTEM_FILE, required: false },
  ];
  for (const { path, required } of paths) {
    const values = readSettings(path, required);
    if (values === null) continue;
    files.push(path);
    layers.push({ origin: path, values });
  }
  const lookup = (name: SettingName): Effective => {
    const flag = flags[name];
    if (flag !== undefined && flag !== null) return { name, value: flag, origin: "flag" };
    const variable = variableOf(name);
    const text = env[variable];
    if (text) return { name, value: check(variable, name, text), origin: variable };
    for (const { origin, values } of layers) {
      const value = values[name];
      if (value !== undefined) return { name, value, origin };
    }
    return { name, value: SETTINGS[name].default, origin: "default" };
  };
  return {
    files,
    get<N extends SettingName>(name: N, flag?: string | number | null): SettingValue<N> {
      return (flag ?? lookup(name).value) as SettingValue<N>;
    },
    effective: () => (Object.keys(SETTINGS) as SettingName[]).map(lookup),
  };
}

function readSettings(path: string, required: boolean): Partial<Record<SettingName, string | number>> | null {
  let text: string;
  try {
    if (process.platform !== "win32" && (statSync(path).mode & 0o002) !== 0) {
      throw new Fault("bad_input", `the configuration file ${path} can be changed by anybody`, {
        hint: `chmod o-w ${path}`,
      });
    }
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Fault) throw error;
    const code = errnoOf(error);
    if (!required && (code === "ENOENT" || code === "ENOTDIR")) return null;
    if (code === "ENOENT") throw new Fault("not_found", `there is no configuration file ${path}`, { hint: CHECK });
    throw new Fault("bad_input", `cannot read the configuration file ${path}`, { why: code ?? "unknown", hint: CHECK });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new Fault("bad_input", `the configuration file ${path} is not JSON`, { hint: FORM });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new Fault("bad_input", `the configuration file ${path} is not a JSON object`, { hint: FORM });
  }
  const values: Partial<Record<SettingName, string | number>> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (!isSetting(name)) {
      const near = nearest(name, Object.keys(SETTINGS));
      throw new Fault(
        "bad_input",
        `unknown setting "${name}" in ${path}${near === null ? "" : `; did you mean "${near}"?`}`,
        { hint: "keyhold config show lists the settings" },
      );
    }
    if (typeof value !== "string")
      throw new Fault("bad_input", `the setting "${name}" in ${path} must be text`, { hint: FORM });
    values[name] = check(`"${name}" in ${path}`, name, value);
  }
  return values;
}

function isSetting(name: string): name is SettingName {
  return Object.hasOwn(SETTINGS, name);
}

function check(label: string, name: SettingName, text: string): string | number {
  const { kind } = SETTINGS[name];
  if (kind === "text") return text;
  if (kind === "duration") {
    const value = parseDuration(text);
    if (value === null) throw new Fault("bad_input", `${label} must be a duration like 30s or 15m`);
    return value;
  }
  const options: readonly string[] = kind;
  if (!options.includes(text)) throw new Fault("bad_input", `${label} must be one of ${options.join(", ")}`);
  return text;
}
