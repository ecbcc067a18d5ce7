import { expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { federationIdOf, type Manifest, verifyManifest } from "../../../src/protocol/federation/manifest.ts";
import { seedOf } from "../../support/policies.ts";
import { manifestOf, nextManifest } from "../../support/registryworld.ts";

const first = manifestOf();
const second = nextManifest(first.manifest, {});
const codeOf = (work: () => unknown): string => {
  try {
    work();
    return "ok";
  } catch (error) {
    return error instanceof Fault ? error.code : String(error);
  }
};

test("after a pinned manifest only the next epoch of the same federation holds", () => {
  expect(codeOf(() => verifyManifest(first, null))).toBe("ok");
  expect(codeOf(() => verifyManifest(second, first.manifest))).toBe("ok");
  expect(codeOf(() => verifyManifest(second, null))).toBe("integrity");
  expect(codeOf(() => verifyManifest(second, second.manifest))).toBe("integrity");
});

test("a first epoch never takes the place of a pinned one, not even of another federation that signed it whole", () => {
  expect(codeOf(() => verifyManifest(first, second.manifest))).toBe("integrity");
  expect(codeOf(() => verifyManifest(first, first.manifest))).toBe("integrity");
  const draft: Omit<Manifest, "federationId"> = { ...first.manifest, nonce: seedOf("another") };
  const manifest = { ...draft, federationId: federationIdOf(draft) };
  const other = nextManifest(manifest, { epoch: 1, previous: manifest.previous });
  expect(codeOf(() => verifyManifest(other, null))).toBe("ok");
  expect(codeOf(() => verifyManifest(other, first.manifest))).toBe("integrity");
});
