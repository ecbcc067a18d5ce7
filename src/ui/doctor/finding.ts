import type { Profile } from "../../client/profile.ts";
import type { Context } from "../command.ts";

/** What one check found; `warn` is worth knowing, `fail` makes `doctor` exit 10. */
export interface Finding {
  /** A short name of what was checked, the same in every run. */
  readonly check: string;
  readonly state: "ok" | "warn" | "fail";
  /** One line; names of files and hosts are made safe where they are printed. */
  readonly detail: string;
  /** A command or an action; null where nothing is to be done. */
  readonly fix: string | null;
  /** What `--fix` may do by itself: undoable, and nothing that any secret depends on. */
  readonly repair?: () => void | Promise<void>;
}

/** What checks look at. */
export interface Patient {
  readonly ctx: Pick<Context, "dirs" | "env" | "inherited">;
  /** null before `init` or `register`. */
  readonly profile: Profile | null;
  readonly nowMs: number;
}

export const ok = (check: string, detail: string): Finding => ({ check, state: "ok", detail, fix: null });

export const warn = (check: string, detail: string, fix: string | null, repair?: Finding["repair"]): Finding => ({
  check,
  state: "warn",
  detail,
  fix,
  ...(repair === undefined ? {} : { repair }),
});

export const fail = (check: string, detail: string, fix: string, repair?: Finding["repair"]): Finding => ({
  ...warn(check, detail, fix, repair),
  state: "fail",
});

/** A path as one word of a shell, for a command that somebody may paste. */
export const quoted = (path: string): string => `'${path.replaceAll("'", "'\\''")}'`;
