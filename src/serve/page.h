/* The page at "/", as bytes (made from page/index.html while building), and the policy that allows its own style and script by their
 * hashes and nothing else. SPDX-License-Identifier: Apache-2.0 */
#pragma once

extern const unsigned char serve_page[];
extern const unsigned long serve_page_size;
extern const char serve_page_csp[];
