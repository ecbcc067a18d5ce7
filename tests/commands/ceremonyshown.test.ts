import { expect, test } from "bun:test";
import { collectText } from "../../src/commands/ceremonyshown.ts";
import type { OutputSpec, StorePolicy } from "../../src/protocol/ceremony/model.ts";

const TOTP: OutputSpec = { kind: "totp", algorithm: "SHA1", digits: 6, period: 30, issuer: "", label: "door" };
const BYTES: OutputSpec = { kind: "bytes", length: 32 };
const text = (output: OutputSpec, collect: StorePolicy["collect"], quorum: number) =>
  collectText({ output, policy: { collect, quorum } });

test("who may have the value is told as the server holds to it", () => {
  expect(text(BYTES, "nobody", 0)).toBe("never: the value stays in the server's key store");
  expect(text(BYTES, "organiser", 0)).toBe("to the organiser, sealed");
  expect(text(BYTES, "participants", 2)).toBe("to participants, sealed, when 2 participants agree");
});

test("a one-time password is not said to stay where its issuer may give it away", () => {
  for (const collect of ["nobody", "organiser", "participants"] as const)
    expect(text(TOTP, collect, 0)).toContain("codes, or the whole key, to whom its organiser lets have them");
  expect(text(TOTP, "participants", 2)).toBe(
    "to participants, sealed, when 2 participants agree; codes to whom its organiser lets have them",
  );
});
