/* The page at "/", as bytes (made from page/index.html while building). SPDX-License-Identifier: Apache-2.0 */
#pragma once

extern const unsigned char serve_page[];
extern const unsigned long serve_page_size;
