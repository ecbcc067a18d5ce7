import { recoveryCode, typedCode } from "../../src/protocol/factor.ts";
import { factorCode, recoveryHash } from "../../src/protocol/factorcode.ts";
import type { InputOf } from "../../src/wire/operations.ts";
import { call, logInRaw, output, type RawOwner, type RawSession } from "./attacker.ts";
import { random, type TestServer } from "./harness.ts";

/** Milliseconds of one code. */
export const STEP = 30_000;

/** An account's second factor as its owner keeps it. */
export interface Enrolled {
  readonly key: Uint8Array;
  readonly codes: readonly string[];
}

/** The letters of a recovery code, as the wire takes them. */
export const letters = (text: string): string => typedCode(text)?.code ?? "";
export const blind = (): Uint8Array => random(16);
export const draft = (): Enrolled => ({
  key: random(20),
  codes: Array.from({ length: 10 }, () => recoveryCode(random(20))),
});

/** Second factors over a server of this moment, whose clock stands. */
export function factors(now: () => { readonly server: TestServer; readonly alice: RawOwner }) {
  /** The code of now, or of a step away from it. */
  const codeNow = (key: Uint8Array, steps = 0): string =>
    factorCode(key, Math.floor(now().server.ctx.now() / STEP) + steps);
  const bring = (session: RawSession, code: string) =>
    call(now().server, session, "session.factor", { code, blind: blind() });
  function enrolment(owner: RawOwner, key: Uint8Array, codes: readonly string[]): InputOf<"account.factor.enable"> {
    const recovery = codes.map((text) => recoveryHash(owner.userId, letters(text)));
    return { key, code: codeNow(key), recovery, proof: null, blind: blind() };
  }
  return {
    codeNow,
    bring,
    enrolment,
    /** A code of no step around now. */
    wrongCode(key: Uint8Array): string {
      const right = new Set([-1, 0, 1].map((steps) => codeNow(key, steps)));
      return ["000000", "000001", "000002", "000003"].find((code) => !right.has(code)) ?? "";
    },
    /** Gives an account a factor; the clock is two steps further then, so that the code of now is a fresh one. */
    async enrol(owner: RawOwner): Promise<Enrolled> {
      const { server } = now();
      const session = await logInRaw(server, owner.account, owner.password);
      const made = draft();
      const answer = await call(server, session, "account.factor.enable", enrolment(owner, made.key, made.codes));
      output("account.factor.enable", answer);
      server.advance(2 * STEP);
      return made;
    },
    /** A login of alice. */
    restricted: (token: Uint8Array | null = null) => logInRaw(now().server, "alice", now().alice.password, { token }),
    check: async (session: RawSession) => (await call(now().server, session, "session.check", {})).code,
  };
}
