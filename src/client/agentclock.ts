import { libc } from "../wire/libc.ts";

/** The clocks that an agent goes by; a test brings its own. */
export interface AgentClock {
  /** Milliseconds since 1970: what people are told. It can be set back and forth. */
  wallMs(): number;
  /** Milliseconds since some moment; never set, and stands while the system sleeps. */
  awakeMs(): number;
  /** Milliseconds slept since the system started, or a constant where the system does not tell. */
  sleptMs(): number;
}

/** The system's clocks. */
export function systemClock(): AgentClock {
  return {
    wallMs: Date.now,
    awakeMs: () => Bun.nanoseconds() / 1e6,
    sleptMs: () => libc()?.sleptMs() ?? 0,
  };
}

/** How long an agent may live, by all clocks at once. */
export interface AgentLimits {
  /** Unused for this long it ends; 0: however long. */
  readonly idleMs: number;
  readonly absoluteMs: number;
  readonly lockOnSuspend: boolean;
}

/** Shorter sleep than this is not told from the imprecision of the clocks. */
const SUSPEND_MS = 500;

/** Why an agent has to end. */
export type AgentEnd = "idle" | "absolute" | "suspend";

/** Watches the limits of one agent. */
export interface AgentTimer {
  readonly startedAtMs: number;
  /** Notes a use. */
  touch(): void;
  /** Why the agent has to end now, or null. */
  over(): AgentEnd | null;
  /** By the wall clock: when it ends if it is not used, and at the latest. */
  ends(): { readonly locksAtMs: number; readonly endsAtMs: number };
}

/**
 * Starts to count. Time passes as fast as the fastest of the clocks says: setting the wall clock back prolongs
 * nothing, time slept counts, and setting it forward ends the agent early.
 */
export function agentTimer(clock: AgentClock, limits: AgentLimits): AgentTimer {
  const read = () => ({ wall: clock.wallMs(), running: clock.awakeMs() + clock.sleptMs(), slept: clock.sleptMs() });
  type Reading = ReturnType<typeof read>;
  const passed = (from: Reading, to: Reading): number => Math.max(0, to.wall - from.wall, to.running - from.running);
  const started = read();
  let used = started;
  return {
    startedAtMs: started.wall,
    touch() {
      used = read();
    },
    over() {
      const now = read();
      if (limits.lockOnSuspend && now.slept - started.slept >= SUSPEND_MS) return "suspend";
      if (passed(started, now) >= limits.absoluteMs) return "absolute";
      return limits.idleMs > 0 && passed(used, now) >= limits.idleMs ? "idle" : null;
    },
    ends() {
      const now = read();
      const endsAtMs = now.wall + limits.absoluteMs - passed(started, now);
      const idleAtMs = limits.idleMs > 0 ? now.wall + limits.idleMs - passed(used, now) : endsAtMs;
      return { locksAtMs: Math.round(Math.min(idleAtMs, endsAtMs)), endsAtMs: Math.round(endsAtMs) };
    },
  };
}
