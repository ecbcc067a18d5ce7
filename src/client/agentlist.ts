import { Fault } from "../errors.ts";
import type { Listed, ListInput, SecretInfo } from "./api.ts";

/** Secrets in one message between a process and its agent; where they do not fit one, they are asked for in halves. */
const PAGE = 8_192;
/** A list that changes faster than it is read is given up. */
const ATTEMPTS = 4;

/**
 * A list whole, in pages where one message cannot hold it; all pages are of one state of the account.
 *
 * @throws Fault stale when it went on changing between the pages
 */
export async function listInPages(input: ListInput, page: (input: ListInput) => Promise<Listed>): Promise<Listed> {
  for (let attempt = 1, limit = PAGE; ; attempt++) {
    try {
      return await allPages(input, limit, page);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      if (error.code === "too_large" && limit > 1) {
        limit = Math.ceil(limit / 2);
        attempt--;
      } else if (error.code !== "stale" || attempt >= ATTEMPTS) throw error;
    }
  }
}

async function allPages(input: ListInput, limit: number, page: (input: ListInput) => Promise<Listed>): Promise<Listed> {
  const { next, ...first } = await page({ ...input, limit });
  const items: SecretInfo[] = [...first.items];
  for (let cursor = next ?? null; cursor !== null; ) {
    const more = await page({ ...input, fresh: false, limit, cursor });
    items.push(...more.items);
    cursor = more.next ?? null;
  }
  return { ...first, items };
}
