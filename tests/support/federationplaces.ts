import { openLabel, sealLabel } from "../../src/client/federation/labels.ts";
import { SEAL_OVERHEAD } from "../../src/crypto/aead.ts";
import { openLive, openPending, sealLive, sealPending } from "../../src/enclave/sealedshare.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId } from "../../src/ids.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import { type ImportBody, requestIdOf, valueHash } from "../../src/protocol/federation/request.ts";
import { sealValue, sharedValue } from "../../src/protocol/federation/sharedvalue.ts";
import type { Place } from "./ciphertexts.ts";
import { type EnclaveWorld, purposeOf } from "./enclaveworld.ts";
import { passwordOf } from "./harness.ts";

/** Of a federation: shares of two keys at two servers, in use and waiting; a label; an imported value. */
export async function placesOfFederation(world: EnclaveWorld): Promise<Place[]> {
  const draw = (length: number) => world.random.bytes(length);
  const places: Place[] = [];
  for (const which of ["one key", "another key"]) {
    const { certificate, shares } = await world.plant("ed25519");
    for (const index of [1, 2]) {
      const { keys } = world.server(index);
      const share = shares.get(index) ?? new Uint8Array(0);
      const name = `of server ${index}, ${which}`;
      places.push(
        {
          kind: "key-share",
          name: `share ${name}`,
          sealed: sealLive(keys, certificate, share, draw),
          open: (sealed) => openLive(keys, certificate, sealed),
        },
        {
          kind: "pending-share",
          name: `pending share ${name}`,
          sealed: sealPending(keys, certificate, share, draw),
          open: (sealed) => openPending(keys, certificate, sealed),
        },
      );
    }
    places.push(placeOfLabel(world, which), placeOfValue(world, which, certificate));
  }
  return places;
}

function placeOfLabel({ manifest: { federationId }, ...world }: EnclaveWorld, which: string): Place {
  const secret = world.random.bytes(32);
  const place = { federationId, requestId: world.random.bytes(32).toHex() as FederatedRequestId };
  return {
    kind: "federation-label",
    name: `label of ${which}`,
    sealed: sealLabel(secret, place, { name: which, nonce: null }, (length) => world.random.bytes(length)),
    open(sealed) {
      const label = openLabel(secret, place, sealed);
      if (label === null) throw new Fault("integrity", "no label");
      return label;
    },
  };
}

function placeOfValue(world: EnclaveWorld, which: string, certificate: Certificate): Place {
  const { federationId } = world.manifest;
  const value = passwordOf(`value of ${which}`);
  const scalar = world.random.bytes(32);
  const origin = { federationId, requester: world.owner.publicKey, nonce: world.random.bytes(32) };
  return {
    kind: "federated-value",
    name: `value of ${which}`,
    sealed: sealValue(scalar, origin, value, (length) => world.random.bytes(length)),
    open(sealed) {
      const body: ImportBody = {
        kind: "import",
        ...purposeOf("bytes"),
        length: sealed.length - SEAL_OVERHEAD,
        origin: "imported",
        threshold: 2,
        holders: [1, 2, 3],
        commitments: certificate.commitments,
        sealedValue: sealed,
      };
      const { request } = world.request(body, { nonce: origin.nonce });
      const named = { requestId: requestIdOf(request), hash: valueHash(sealed) };
      return sharedValue({ ...certificate, type: "bytes", length: body.length, value: named }, scalar, request);
    },
  };
}
