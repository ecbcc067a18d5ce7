import type { CeremonyClient, CeremonyInfo } from "../client/ceremonyapi.ts";
import { isAway } from "../client/opened.ts";
import { Fault } from "../errors.ts";
import type { Context } from "../ui/command.ts";
import { liveBlock } from "../ui/liveblock.ts";
import { plain } from "../ui/text.ts";
import { changes, isOver, leftText, rosterLines, stageText } from "./ceremonyshown.ts";
import { pause } from "./pause.ts";

/** First pause between two looks; the longest while the server answers, or the vault is locked; and while it is away. */
const LOOK_MS = { first: 1_000, most: 5_000, away: 60_000 } as const;
/** Pauses become longer by so much. */
const SLOWER = 1.25;
/** A pause is at most this part of the time that is left. */
const PAUSES_LEFT = 20;
/** So long after the last moment at which something can be due it is given up. */
const GRACE_MS = 120_000;

/** How a command waits. */
export interface Waiting {
  /** Null: as long as it takes. */
  readonly timeoutMs: number | null;
  /** Command that goes on with it. */
  readonly goOn: string;
  /** One look, which does what is this vault's to do. */
  readonly look: () => Promise<CeremonyInfo>;
  readonly signal: AbortSignal;
  /** Milliseconds since 1970, and how time passes; by default the system's. */
  readonly time?: Time;
}

interface Time {
  readonly now: () => number;
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** One look of a participant who waits: it leaves the agent's idle time as it is. */
export const advancing =
  (client: Pick<CeremonyClient, "ceremonyAdvance">, ceremony: string): Waiting["look"] =>
  () =>
    client.ceremonyAdvance({ ceremony, passive: true });

/** What keeps it from looking, for now. */
interface Trouble {
  readonly kind: "away" | "busy" | "locked";
  readonly fault: Fault;
  /** When it is given up. */
  readonly untilMs: number;
}

function kindOf(error: unknown): Trouble["kind"] | null {
  if (isAway(error)) return "away";
  if (!(error instanceof Fault)) return null;
  return error.code === "locked" ? "locked" : error.code === "rate_limited" ? "busy" : null;
}

/** Until when it is worth waiting: as long as this vault may have something to do by what was seen last. */
function worthUntil({ status, until, revealMs }: CeremonyInfo, nowMs: number): number {
  const stageMs = until === null ? nowMs : Math.max(nowMs, Date.parse(until));
  return stageMs + (status === "reveal" ? 0 : revealMs) + GRACE_MS;
}

/** The same fault with the command that goes on. */
function goesOnLater({ kind, fault }: Pick<Trouble, "kind" | "fault">, goOn: string): Fault {
  const { code, message, why, culprits, retryAfterMs, requestId } = fault;
  return new Fault(code, message, {
    hint: kind === "locked" ? `keyhold unlock; then ${goOn} goes on` : `${goOn} goes on`,
    culprits,
    ...(why !== undefined && { why }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    ...(requestId !== undefined && { requestId }),
  });
}

/** What is said of it, once; the second line is for a narrow terminal, where the first one is cut. */
function troubleLines({ kind, fault, untilMs }: Trouble, nowMs: number): readonly string[] {
  const left = `for ${leftText(untilMs - nowMs)} at most`;
  return kind === "locked"
    ? [`! the vault is locked: this waits until it is unlocked, ${left}`, "  in another window: keyhold unlock"]
    : [`! ${plain(fault.message)}: trying again, ${left}`];
}

const OVER: Readonly<Record<Trouble["kind"], string>> = {
  away: "the server is back",
  busy: "the server answers again",
  locked: "unlocked: going on",
};

/**
 * Looks until a ceremony is over, and shows who has done what: drawn in place at a terminal, else a line a change. A
 * server that is away is waited for as long as the stage lasts, with longer and longer pauses; at a terminal a vault that
 * is locked meanwhile, too.
 *
 * @throws Fault timed_out; locked, unreachable and the like, with the command that goes on
 */
export async function waitForEnd(
  ctx: Pick<Context, "out" | "term">,
  from: CeremonyInfo,
  { timeoutMs, goOn, look, signal, time = { now: Date.now, pause } }: Waiting,
): Promise<CeremonyInfo> {
  const { out, term } = ctx;
  const size = () => ({ columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 });
  const block = liveBlock(out, size);
  const end = timeoutMs === null ? Number.POSITIVE_INFINITY : time.now() + timeoutMs;
  let info = from;
  let shown: CeremonyInfo | null = null;
  let trouble: Trouble | null = null;
  let pauseMs: number = LOOK_MS.first;

  const show = (said: readonly string[] = []) => {
    const now = time.now();
    if (out.animated) {
      const below = trouble === null ? [] : troubleLines(trouble, now).map((line) => `  ${line}`);
      block.show([stageText(info, now), ...rosterLines(info), ...below]);
    } else if (!out.json) {
      for (const line of [...said, ...changes(shown, info, now)]) out.notice(line);
    }
    shown = info;
  };
  /** Notes what keeps it from looking. @throws Fault for what is not to be waited for */
  const wait = (error: unknown): void => {
    const kind = kindOf(error);
    if (kind === null || !(error instanceof Fault)) throw error;
    const now = time.now();
    const known: Trouble | null = trouble?.kind === kind ? trouble : null;
    const untilMs = trouble?.untilMs ?? worthUntil(info, now);
    trouble = { kind, fault: known?.fault ?? error, untilMs };
    const asked = kind !== "locked" || (term.canPrompt && !out.json);
    if (!asked || now >= untilMs) throw goesOnLater({ kind, fault: error }, goOn);
    show(known ? [] : [troubleLines(trouble, now).join("\n")]);
    const most = kind === "locked" ? LOOK_MS.most : Math.min(LOOK_MS.away, (untilMs - now) / PAUSES_LEFT);
    pauseMs = Math.max(LOOK_MS.first, error.retryAfterMs ?? 0, Math.min(pauseMs, most));
  };

  try {
    show();
    for (;;) {
      try {
        info = await look();
        const over: Trouble["kind"] | undefined = (trouble as Trouble | null)?.kind;
        trouble = null;
        if (over !== undefined) pauseMs = LOOK_MS.first;
        else pauseMs = Math.min(LOOK_MS.most, pauseMs);
        show(over === undefined ? [] : [OVER[over]]);
        if (isOver(info)) return info;
      } catch (error) {
        wait(error);
      }
      const left = end - time.now();
      if (left <= 0) {
        throw new Fault("timed_out", `the ceremony is not over: ${stageText(info, time.now())}`, {
          hint: `${goOn} goes on`,
        });
      }
      await time.pause(Math.min(pauseMs, left), signal);
      pauseMs *= SLOWER;
    }
  } finally {
    block.end();
  }
}

/** Work that SIGINT and SIGTERM end at once, and then say how to go on. */
export async function goingOn<T>(
  ctx: Pick<Context, "onTerminate" | "out">,
  goOn: () => string | null,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T | number> {
  const ended = Promise.withResolvers<NodeJS.Signals>();
  const abort = new AbortController();
  const said = (message: string) => {
    const hint = goOn();
    return new Fault("interrupted", message, { hint: hint === null ? "nothing was done" : `${hint} goes on` });
  };
  ctx.onTerminate((signal) => {
    abort.abort(new Fault("interrupted", `ended by ${signal}`));
    ended.resolve(signal);
  });
  try {
    const working = work(abort.signal);
    const first = await Promise.race([working.then((value) => ({ value })), ended.promise]);
    if (typeof first !== "string") return first.value;
    working.catch(() => undefined);
    return ctx.out.fail(said(`ended by ${first}`), 128 + SIGNAL_NUMBERS[first as keyof typeof SIGNAL_NUMBERS]);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "interrupted") throw error;
    throw said("cancelled");
  } finally {
    ctx.onTerminate(null);
  }
}

const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
