import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { clipboardWay, copyToClipboard } from "../ui/clipboard.ts";
import type { Context } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";

/** A code that was handed out or counted: it does not come a second time. */
export interface ToCopy {
  readonly value: string;
  /** Data without the code, and with it. */
  readonly about: object;
  readonly whole: object;
  /** How long it is good, for people. */
  readonly said: string;
  readonly clearAfter: number | null;
  readonly requestId?: string | null;
  readonly exit?: 0 | 10;
}

/** Refuses, before a code is used up, what no clipboard could take. @throws Fault unavailable */
export function demandClipboard({ env }: Pick<Context, "env">): void {
  if (clipboardWay(env, process.platform, "/dev/tty") !== null) return;
  throw new Fault("unavailable", "there is no clipboard to copy to: no code was asked for", {
    hint: "leave out --copy, or install xclip or wl-clipboard",
  });
}

/** Copies a code; where that fails all the same it is printed, with exit 10, so that it is not lost. */
export async function copyCode(ctx: Pick<Context, "env" | "out" | "settings">, code: ToCopy): Promise<Result> {
  const { value, about, whole, said, requestId = null, exit = 0 } = code;
  const clearAfterMs = (await ctx.settings()).get("clearAfter", code.clearAfter);
  const bytes = new TextEncoder().encode(value);
  try {
    const done = await copyToClipboard({ value: bytes, clearAfterMs, env: ctx.env });
    return result(about, () => `${done.message}; ${said}`, { requestId, exit });
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    ctx.out.warn(`${error.message}: so that it is not lost, the code is printed`);
    ctx.out.notice(said);
    return result(whole, () => value, { requestId, exit: 10, bare: true });
  } finally {
    wipe(bytes);
  }
}
