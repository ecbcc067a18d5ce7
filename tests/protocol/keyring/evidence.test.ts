import { describe, expect, test } from "bun:test";
import { hashCanon } from "../../../src/crypto/kdf.ts";
import { Fault } from "../../../src/errors.ts";
import { type FederatedKeyId, hashId, type KeyringId } from "../../../src/ids.ts";
import { type EquivocationProof, proveEquivocation, verifyEvidence } from "../../../src/protocol/keyring/evidence.ts";
import {
  isResponseEquivocation,
  type PartyResponse,
  responseBytes,
  responseValue,
  type SignedResponse,
  signResponse,
  verifyResponse,
} from "../../../src/protocol/keyring/response.ts";
import { equivocationProof } from "../../../src/wire/keyring/records.ts";
import { itemIdOf, KEYRING, responseOf, signerOf } from "./lifecase.ts";

const hash = (text: string) => hashCanon("test", text);
const first = responseOf(0, 0, "1");
const second = responseOf(0, 0, "2");
const proof = proveEquivocation(first, second);

function codeOf(work: () => unknown): string {
  try {
    work();
    return "nothing";
  } catch (error) {
    return error instanceof Fault ? error.code : `no Fault: ${String(error)}`;
  }
}

/** One change of each field of a response. */
const CHANGES: { readonly [F in keyof PartyResponse]: PartyResponse[F] } = {
  keyringId: hashId<KeyringId>(hash("another keyring")),
  requestId: itemIdOf(7),
  verdict: "rejected",
  attempt: 2,
  keyId: hashId<FederatedKeyId>(hash("another key")),
  publicKey: hash("another public key"),
  certificateHash: hash("another certificate"),
  policyHash: hash("another policy"),
  reason: "other words",
  key: signerOf(5).publicKey,
};
const FIELDS = Object.keys(CHANGES) as (keyof PartyResponse)[];
const OWN_WORDS: readonly (keyof PartyResponse)[] = ["policyHash", "reason", "key"];
const changed = (field: keyof PartyResponse): PartyResponse => ({ ...first.response, [field]: CHANGES[field] });
/** As its own party would have signed it. */
const resigned = (field: keyof PartyResponse): SignedResponse => signResponse(signerOf(0), changed(field));

describe("a response", () => {
  test("holds under its party's key", () => {
    expect(verifyResponse(first)).toBe(first.response);
    expect(first.response.key).toEqual(signerOf(0).publicKey);
  });

  test.each(FIELDS)("is signed with its %s", (field) => {
    const altered = changed(field);
    expect(responseBytes(altered)).not.toEqual(responseBytes(first.response));
    expect(codeOf(() => verifyResponse({ response: altered, signature: first.signature }))).toBe("integrity");
  });

  test("of another's key, or of a wrong length, does not hold", () => {
    const { response } = first;
    const forged = { response, signature: signerOf(1).sign(responseBytes(response)) };
    expect(codeOf(() => verifyResponse(forged))).toBe("integrity");
    for (const length of [0, 63, 65]) {
      expect(codeOf(() => verifyResponse({ response, signature: new Uint8Array(length) }))).toBe("integrity");
    }
    expect(
      codeOf(() => verifyResponse({ response: { ...response, key: new Uint8Array(32) }, signature: first.signature })),
    ).toBe("integrity");
  });

  test.each(FIELDS)("agrees with another by all but its own words: %s", (field) => {
    const equal = responseValue(changed(field)).toHex() === responseValue(first.response).toHex();
    expect(equal).toBe(OWN_WORDS.includes(field));
  });
});

describe("equivocation", () => {
  test.each(FIELDS.filter((f) => f !== "keyringId" && f !== "requestId" && f !== "key"))(
    "two responses that differ in their %s prove it",
    (field) => {
      const other = resigned(field);
      expect(isResponseEquivocation(first, other)).toBe(true);
      verifyEvidence(proveEquivocation(first, other));
      verifyEvidence(proveEquivocation(other, first));
    },
  );

  test("none is: the same twice, another item, another keyring, another party", () => {
    const others = [first, resigned("requestId"), resigned("keyringId"), responseOf(1, 0, "2")];
    for (const other of others) expect(codeOf(() => proveEquivocation(first, other))).toBe("integrity");
  });

  test("the same words with another valid signature are the same", () => {
    const again = { response: { ...first.response }, signature: first.signature.slice() };
    expect(codeOf(() => proveEquivocation(first, again))).toBe("integrity");
  });

  test("a response that the party has not signed proves nothing against it", () => {
    const framed = signResponse(signerOf(1), second.response);
    const forged: SignedResponse = { response: second.response, signature: framed.signature };
    expect(codeOf(() => proveEquivocation(first, forged))).toBe("integrity");
    expect(codeOf(() => proveEquivocation(forged, first))).toBe("integrity");
  });

  test("what it says of keyring and party is what the responses say", () => {
    expect(codeOf(() => verifyEvidence({ ...proof, keyring: CHANGES.keyringId }))).toBe("integrity");
    expect(codeOf(() => verifyEvidence({ ...proof, party: signerOf(1).publicKey }))).toBe("integrity");
    expect(proof.keyring).toBe(KEYRING);
    expect(proof.party).toEqual(signerOf(0).publicKey);
  });
});

/** As a third person reads it: text in, nothing else known. */
function readBy(text: string): EquivocationProof {
  const read = equivocationProof.decode(JSON.parse(text), "");
  verifyEvidence(read);
  return read;
}

describe("evidence as text", () => {
  const text = JSON.stringify(equivocationProof.encode(proof));

  test("is verified by whoever reads it", () => {
    expect(readBy(text)).toEqual(proof);
  });

  test("with any byte of it altered is refused", () => {
    const bytes = new TextEncoder().encode(text);
    const accepted: string[] = [];
    for (let at = 0; at < bytes.length; at++) {
      for (const mask of [1, 2, 4, 8, 16, 32, 64, 128]) {
        const altered = bytes.slice();
        altered[at] = (altered[at] ?? 0) ^ mask;
        const hit = new TextDecoder().decode(altered);
        try {
          readBy(hit);
          accepted.push(`byte ${at}, bit ${mask}: ${hit.slice(at - 20, at + 20)}`);
        } catch (error) {
          if (!(error instanceof Fault || error instanceof SyntaxError)) throw error;
        }
      }
    }
    expect(accepted).toEqual([]);
  });

  test("cut short, or with something added, is refused", () => {
    const whole = JSON.parse(text);
    for (const field of Object.keys(whole)) {
      const { [field]: _, ...rest } = whole;
      expect(codeOf(() => equivocationProof.decode(rest, ""))).toBe("bad_input");
    }
    expect(codeOf(() => equivocationProof.decode({ ...whole, note: "" }, ""))).toBe("bad_input");
  });
});
