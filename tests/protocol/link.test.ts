import { expect, test } from "bun:test";
import { linkId, openParcel, sealParcel } from "../../src/protocol/link.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

test("a parcel opens with its secret alone, and no bit of it can be changed", () => {
  const secret = random(16);
  const parcel = new TextEncoder().encode("the account");
  const sealed = sealParcel(secret, parcel, random);
  expect(openParcel(secret, sealed)).toEqual(parcel);
  const refused = (work: () => unknown) => expect(work).toThrow(expect.objectContaining({ code: "integrity" }));
  refused(() => openParcel(random(16), sealed));
  for (let at = 0; at < sealed.length; at++) {
    const bent = sealed.slice();
    bent[at] = (bent[at] ?? 0) ^ 1;
    refused(() => openParcel(secret, bent));
  }
});

test("the id under which it lies tells links apart and is not the secret", () => {
  const [one, two] = [random(16), random(16)];
  expect(linkId(one)).toHaveLength(32);
  expect(linkId(one)).not.toEqual(linkId(two));
  expect(linkId(one).toHex()).not.toContain(one.toHex());
});
