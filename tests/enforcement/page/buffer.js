// The buffer of all players in seconds. It is small, so that they request media during the whole test.
export const BUFFER_S = 4;
