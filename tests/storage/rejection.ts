/**
 * What a promise rejects with. `expect(promise).rejects` turns the event loop while it waits, inside the caller's own
 * turn; transactions tell by such turns that a job waits for something foreign, so their tests wait in the plain way.
 *
 * @throws Error when the promise resolves.
 */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("the promise resolved, a rejection was due");
    },
    (error: unknown) => error,
  );
}
