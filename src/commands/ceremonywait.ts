import type { CeremonyClient, CeremonyInfo } from "../client/ceremonyapi.ts";
import { isAway } from "../client/opened.ts";
import { Fault } from "../errors.ts";
import type { Context } from "../ui/command.ts";
import { liveBlock } from "../ui/liveblock.ts";
import { plain } from "../ui/text.ts";
import { changes, isOver, rosterLines, stageText } from "./ceremonyshown.ts";
import { pause } from "./pause.ts";

/** First and last pause between two looks. */
const LOOK_MS = { first: 1_000, most: 5_000 } as const;
/** Pauses become longer by so much. */
const SLOWER = 1.25;
/** A server that is away for so long is given up. */
const AWAY_MS = 120_000;

/** How a command waits. */
export interface Waiting {
  /** Null: as long as it takes. */
  readonly timeoutMs: number | null;
  /** Command that goes on with it. */
  readonly goOn: string;
  /** One look, which does what is this vault's to do. */
  readonly look: () => Promise<CeremonyInfo>;
  readonly signal: AbortSignal;
}

/** One look of a participant. */
export const advancing =
  (client: Pick<CeremonyClient, "ceremonyAdvance">, ceremony: string): Waiting["look"] =>
  () =>
    client.ceremonyAdvance({ ceremony });

/**
 * Looks until a ceremony is over, and shows who has done what: drawn in place at a terminal, else a line a change. A
 * server that is away for a while is waited for.
 *
 * @throws Fault timed_out; unreachable and the like after two minutes
 */
export async function waitForEnd(
  ctx: Pick<Context, "out">,
  from: CeremonyInfo | null,
  { timeoutMs, goOn, look, signal }: Waiting,
): Promise<CeremonyInfo> {
  const { out } = ctx;
  const size = () => ({ columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 });
  const block = liveBlock(out, size);
  const end = timeoutMs === null ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
  let last: CeremonyInfo | null = null;
  let awaySince: number | null = null;
  let pauseMs: number = LOOK_MS.first;
  const show = (info: CeremonyInfo, away: Fault | null) => {
    const now = Date.now();
    const trouble = away === null ? [] : [`  ! ${plain(away.message)}: trying again`];
    if (out.animated) block.show([stageText(info, now), ...rosterLines(info), ...trouble]);
    else if (!out.json) for (const line of [...changes(last, info, now), ...trouble]) out.notice(line);
    last = info;
  };
  try {
    if (from !== null) show(from, null);
    for (let info = from; ; ) {
      try {
        info = await look();
        if (awaySince !== null) pauseMs = LOOK_MS.first;
        awaySince = null;
        show(info, null);
      } catch (error) {
        const now = Date.now();
        awaySince ??= now;
        if (info === null || !isAway(error) || now - awaySince > AWAY_MS) throw error;
        show(info, error);
      }
      if (awaySince === null && isOver(info)) return info;
      const left = end - Date.now();
      if (left <= 0) {
        throw new Fault("timed_out", `the ceremony is not over: ${stageText(info, Date.now())}`, {
          hint: `${goOn} goes on`,
        });
      }
      await pause(Math.min(pauseMs, left), signal);
      pauseMs = Math.min(LOOK_MS.most, pauseMs * SLOWER);
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
