import { wipe } from "../../crypto/bytes.ts";
import type { CeremonyClient, OtpServer } from "../ceremonyapi.ts";
import type { Reaching } from "../federation/members.ts";
import type { Open } from "../opened.ts";
import { allEntries, createEntry, entryInfo, grantEntry, handoutsOf, revokeEntry } from "../otpdistribution/entries.ts";
import { receiveKey, sendKey } from "../otpdistribution/moving.ts";
import { deviceInfo, requestCode } from "../otpdistribution/requests.ts";
import { checkCode, createToken, revokeToken, tokensOf, verifyCode } from "../otpdistribution/verifying.ts";
import { refresh } from "../vaultbox.ts";
import { advance } from "./acts.ts";
import { allCeremonies, ceremonyNow } from "./finding.ts";
import { createGround, type Ground } from "./ground.ts";
import { joinCeremony, lookAtInvite } from "./joining.ts";
import { closeCeremony, invitesAgain, openCeremony } from "./organising.ts";
import { approve, collect, openingFile, ownIn, transcriptFile } from "./values.ts";

/** The ceremonies' part of the client API, and its end. */
export interface CeremonyPart {
  readonly calls: CeremonyClient;
  /** Wipes what the vault's model holds of ceremonies. */
  end(): void;
}

/** Runs one call over what is around it. */
type Around = <T>(work: (ground: Ground) => T | Promise<T>) => Promise<T>;

/** The part of the client API for ceremonies and one-time codes over any ground (docs/client.md). */
export function ceremonyCalls(at: Around): CeremonyClient {
  return {
    ceremonyOpen: (input) => at((ground) => openCeremony(ground, input)),
    ceremonyInvites: (input) => at((ground) => invitesAgain(ground, input.ceremony)),
    ceremonyLook: (input) => at((ground) => lookAtInvite(ground, input.invite)),
    ceremonyJoin: (input) => at((ground) => joinCeremony(ground, input)),
    ceremonyAdvance: (input) => at((ground) => advance(ground, input.ceremony)),
    ceremonies: () => at(allCeremonies),
    ceremony: (input) => at((ground) => ceremonyNow(ground, input.ceremony, input.fresh)),
    ceremonyClose: (input) => at((ground) => closeCeremony(ground, input.ceremony, input.abort)),
    ceremonyTranscript: (input) => at((ground) => transcriptFile(ground, input.ceremony)),
    ceremonyOpening: (input) => at((ground) => openingFile(ground, input.ceremony)),
    ceremonyOwn: (input) => at((ground) => ownIn(ground, input.ceremonyId)),
    ceremonyCollect: (input) => at((ground) => collect(ground, input.ceremony)),
    ceremonyApprove: (input) => at((ground) => approve(ground, input.ceremony, input.releaseHex)),
    otpDevice: () => at(deviceInfo),
    otpCreate: (input) => at((ground) => createEntry(ground, input)),
    otpEntries: () => at(async (ground) => (await allEntries(ground)).map((one) => entryInfo(ground, one))),
    otpGrant: (input) => at((ground) => grantEntry(ground, input)),
    otpRevoke: (input) => at((ground) => revokeEntry(ground, input)),
    otpHandouts: (input) => at((ground) => handoutsOf(ground, input.key)),
    otpRequest: (input) => at((ground) => requestCode(ground, input)),
    otpCheck: (input) => at((ground) => checkCode(ground, input)),
    otpTokenCreate: (input) => at((ground) => createToken(ground, input)),
    otpTokens: (input) => at((ground) => tokensOf(ground, input.key)),
    otpTokenRevoke: (input) => at((ground) => revokeToken(ground, input)),
    otpVerify: (input) => at((ground) => verifyCode(ground, input)),
    otpSend: (input) => at((ground) => sendKey(ground, input)),
    otpReceive: (input) => at((ground) => receiveKey(ground, input.parcel)),
  };
}

/**
 * Makes the ceremonies' part of the client API over an open vault, with or without an account (docs/client.md).
 *
 * @param place The profile's server; null without one.
 */
export function createCeremonyClient(open: Open, place: OtpServer | null, reaching: Reaching = {}): CeremonyPart {
  const ground = createGround(open, place, reaching);
  return {
    calls: ceremonyCalls(async (work) => {
      refresh(open.box);
      return work(ground);
    }),
    end() {
      const { ceremonies, ceremonyDrafts, otpDeviceSeed, otpAsks } = ground.held();
      for (const { own, organiser, asked } of ceremonies) {
        wipe(own?.keySeed, own?.sealingSeed, own?.inviteSeed, own?.opening, own?.scalar ?? undefined);
        wipe(own?.part ?? undefined, organiser?.seed, asked?.recipientSeed);
        wipe(...(organiser?.invites ?? []).map(({ seed }) => seed));
      }
      for (const { seed, invites } of ceremonyDrafts) wipe(seed, ...invites.map((one) => one.seed));
      wipe(otpDeviceSeed ?? undefined, ...otpAsks.map(({ recipientSeed }) => recipientSeed));
    },
  };
}
